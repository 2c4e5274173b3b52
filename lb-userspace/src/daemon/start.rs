//! From a validated configuration to a daemon that is ready. Whatever can fail without touching
//! the host comes first; a start that fails later takes back what it did.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::seams::{Checks, HealthEvent, Network, NetworkEvent, Next, Plane, Scope};
use super::state::{Daemon, Loader, Rooms};
use super::turn::{self, Feeds};
use super::{destinations, lock, notify};
use crate::admin::Store;
use crate::api::server::{Call, Server, listening_pid};
use crate::config::model::Config;

/// How long to wait for next hops before the data plane is told. A daemon that starts anew finds
/// its neighbours in the kernel at once; without this wait it would take them away for a moment.
const PATHS: Duration = Duration::from_millis(1000);
/// How long to wait for virtual addresses, so that "ready" means that clients can come.
const VIPS: Duration = Duration::from_secs(3);
/// Calls from clients that wait for the event loop.
const CALLS: usize = 32;

/// The rooms, opened.
pub struct Opened<P, N, C> {
    /// They themselves.
    pub rooms: Rooms<P, N, C>,
    /// Events of the health checks.
    pub health: mpsc::UnboundedReceiver<HealthEvent>,
    /// Events of the network.
    pub network: mpsc::UnboundedReceiver<NetworkEvent>,
    /// Takes back what opening did, for a start that fails. Does nothing to a data plane that was
    /// there before.
    pub undo: Box<dyn FnOnce() + Send>,
    /// The data plane was there before, with its connections.
    pub adopted: bool,
}

/// Everything that a start needs to know.
pub struct Plan {
    /// The configuration.
    pub config: Config,
    /// Its file.
    pub path: PathBuf,
    /// Reads the file again.
    pub load: Loader,
    /// The control socket.
    pub socket: PathBuf,
}

/// Starts, turns until told to stop, and ends.
///
/// # Errors
/// It could not start; nothing is left half-done then.
pub async fn run<P: Plane, N: Network, C: Checks>(
    plan: Plan,
    open: impl AsyncFnOnce(&Config) -> anyhow::Result<Opened<P, N, C>>,
) -> anyhow::Result<()> {
    let Plan { config, path, load, socket } = plan;
    let _lock = lock::take(&config.global.state_dir)?;
    if let Some(pid) = listening_pid(&socket) {
        anyhow::bail!("medlb is already running (pid {pid}): {} answers", socket.display());
    }
    let orders = turn::orders()?;
    let mut store = Store::open(&config.global.state_dir)?;
    store.follow(&config)?;
    let server = Server::bind(&socket, config.global.socket_group.as_deref())?;
    let opened = open(&config).await?;
    let Opened { rooms, health, mut network, undo, adopted } = opened;
    let mut daemon = Daemon::new(config, path, load, store, rooms);
    if let Err(error) = bring_up(&mut daemon, &mut network).await {
        undo();
        return Err(error);
    }
    let (sender, calls) = mpsc::channel::<Call>(CALLS);
    let serving = tokio::spawn(server.serve(sender));
    announce(&daemon, adopted);
    turn::run(&mut daemon, Feeds { calls, health, network, orders }).await;
    // It ends because the receiver of calls is gone, and removes the socket.
    if tokio::time::timeout(Duration::from_secs(2), serving).await.is_err() {
        warn!("the control socket is slow to close");
    }
    Ok(())
}

async fn bring_up<P: Plane, N: Network, C: Checks>(
    daemon: &mut Daemon<P, N, C>,
    events: &mut mpsc::UnboundedReceiver<NetworkEvent>,
) -> anyhow::Result<()> {
    let config = daemon.config.clone();
    daemon.rooms.network.watch(&config);
    let wanted = destinations(&config);
    let until = Instant::now() + PATHS;
    let known = |next: &Next| next.path.is_some_and(|path| path.dst_mac.is_some());
    while !wanted.iter().all(|address| daemon.paths.get(address).is_some_and(known)) {
        match timeout_at(until, events.recv()).await {
            Ok(Some(NetworkEvent::Paths(paths))) => daemon.paths.extend(paths),
            Ok(Some(NetworkEvent::Links)) => {}
            Ok(None) => anyhow::bail!("the network monitor has ended: please report this"),
            Err(_) => break, // those that are still silent come as events, if ever
        }
    }
    daemon.apply(Scope::Everything)?;
    // Only now: a client that arrives earlier would be refused by the host itself.
    let placed = daemon.rooms.network.set_vips(&config);
    if tokio::time::timeout(VIPS, placed).await.is_err() {
        warn!("the virtual addresses are slow to be put in place");
    }
    daemon.rooms.checks.follow(&config);
    Ok(())
}

fn announce<P: Plane, N: Network, C: Checks>(daemon: &Daemon<P, N, C>, adopted: bool) {
    let config = &daemon.config;
    let attached: Vec<_> = daemon
        .rooms
        .plane
        .interfaces()
        .iter()
        .map(|interface| format!("{} ({})", interface.name, interface.xdp_mode))
        .collect();
    let services = config.services.iter().filter(|service| service.enabled).count();
    let (_, servers) = daemon.up_count();
    notify::ready();
    info!(
        services,
        real_servers = servers,
        interfaces = attached.join(", "),
        adopted,
        config = %daemon.config_path.display(),
        "ready"
    );
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;
