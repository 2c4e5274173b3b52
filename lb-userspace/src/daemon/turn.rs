//! The event loop: waits for whatever comes first, and does it.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::notify;
use super::seams::{Checks, HealthEvent, Network, NetworkEvent, Plane};
use super::state::Daemon;
use crate::api::server::Call;

/// Between heartbeats, and between attempts to mend what could not be applied.
const TICK: Duration = Duration::from_millis(500);
/// Between sweeps of the connection tables.
const SWEEP: Duration = Duration::from_secs(10);
/// Events taken together at most, so that a storm of them cannot starve the rest.
const BATCH: usize = 1024;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

/// Where events come from.
pub struct Feeds {
    /// The control socket.
    pub calls: mpsc::Receiver<Call>,
    /// The health checks.
    pub health: mpsc::UnboundedReceiver<HealthEvent>,
    /// The network.
    pub network: mpsc::UnboundedReceiver<NetworkEvent>,
    /// Signals.
    pub orders: mpsc::UnboundedReceiver<Order>,
}

/// Turns signals into orders. Must be called early: until then SIGHUP ends the process.
///
/// # Errors
/// The kernel refuses a signal handler.
pub fn orders() -> std::io::Result<mpsc::UnboundedReceiver<Order>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let order = tokio::select! {
                _ = hangup.recv() => Order::Reload,
                _ = terminate.recv() => Order::Stop,
                _ = interrupt.recv() => Order::Stop,
            };
            if sender.send(order).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Runs until it is told to stop. The data plane goes on.
pub async fn run<P: Plane, N: Network, C: Checks>(daemon: &mut Daemon<P, N, C>, mut feeds: Feeds) {
    let mut tick = steady(TICK);
    let mut sweep = steady(SWEEP);
    let mut sweeping: Option<JoinHandle<anyhow::Result<()>>> = None;
    loop {
        tokio::select! {
            // In order of urgency: a failed server first, a listing for people last.
            biased;
            Some(event) = feeds.health.recv() => daemon.on_health(batch(event, &mut feeds.health)),
            Some(event) = feeds.network.recv() => {
                daemon.on_network(batch(event, &mut feeds.network));
            },
            Some(order) = feeds.orders.recv() => match order {
                Order::Stop => break,
                Order::Reload => {
                    notify::reloading();
                    daemon.reload().ok(); // logged and noted there
                    notify::ready();
                }
            },
            _ = tick.tick() => {
                daemon.on_tick();
                notify::alive();
            }
            ended = ended(&mut sweeping) => {
                sweeping = None;
                log_sweep(ended);
            }
            _ = sweep.tick(), if sweeping.is_none() => {
                sweeping = Some(tokio::task::spawn_blocking(daemon.rooms.plane.sweep()));
            }
            Some(call) = feeds.calls.recv() => daemon.on_call(call),
        }
    }
    notify::stopping();
    info!(
        "stopping: the data plane goes on forwarding and the virtual addresses stay; \
         `medlb teardown` takes them away"
    );
}

fn steady(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn batch<T>(first: T, more: &mut mpsc::UnboundedReceiver<T>) -> Vec<T> {
    let mut events = vec![first];
    while events.len() < BATCH
        && let Ok(event) = more.try_recv()
    {
        events.push(event);
    }
    events
}

/// Waits for the sweep under way; for ever if there is none.
async fn ended(
    sweeping: &mut Option<JoinHandle<anyhow::Result<()>>>,
) -> Result<anyhow::Result<()>, tokio::task::JoinError> {
    match sweeping {
        Some(handle) => handle.await,
        None => std::future::pending().await,
    }
}

fn log_sweep(ended: Result<anyhow::Result<()>, tokio::task::JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            warn!(error = format!("{error:#}"), "the connection tables were not swept")
        }
        Err(error) => error!(%error, "the sweeper failed: please report this"),
    }
}
