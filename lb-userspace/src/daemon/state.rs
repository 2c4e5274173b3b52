//! What the daemon knows, and what it does when that changes. One task owns it, so there are no
//! locks and no orders of events that it does not see.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::{error, info};

use super::Loaded;
use super::rotation::Effective;
use super::seams::{
    Applied, Checks, HealthEvent, Inputs, Network, NetworkEvent, Next, Plane, Scope,
};
use super::view;
use crate::admin::{AdminState, ServerLabel, Store};
use crate::config::model::{Config, RealServer, Service};
use crate::health::{Health, View};

/// Reads and validates the configuration file; the error names everything that is wrong.
pub type Loader = Box<dyn Fn() -> Result<Loaded, String> + Send>;

/// The rooms around the event loop.
pub struct Rooms<P, N, C> {
    /// The data plane.
    pub plane: P,
    /// The network.
    pub network: N,
    /// The health checks.
    pub checks: C,
}

/// The state of the daemon.
pub struct Daemon<P, N, C> {
    pub(super) config: Arc<Config>,
    pub(super) config_path: PathBuf,
    pub(super) load: Loader,
    pub(super) rooms: Rooms<P, N, C>,
    pub(super) store: Store,
    pub(super) admin: HashMap<ServerLabel, AdminState>,
    pub(super) health: HashMap<ServerLabel, View>,
    pub(super) paths: HashMap<IpAddr, Next>,
    /// What the data plane made of each server.
    pub(super) decided: HashMap<ServerLabel, Effective>,
    pub(super) started: Instant,
    /// When the event loop last turned.
    pub(super) heartbeat: Instant,
    /// The last reload was refused for this.
    pub(super) refused_reload: Option<String>,
    /// What the data plane does may differ from what it should do, for this.
    pub(super) behind: Option<String>,
    /// Apply everything again at the next tick: slow start, or a failure.
    pub(super) again: bool,
    /// State of each service when it was last logged.
    states: HashMap<String, &'static str>,
}

impl<P: Plane, N: Network, C: Checks> Daemon<P, N, C> {
    /// With nothing done yet.
    pub fn new(
        config: Config,
        path: PathBuf,
        load: Loader,
        store: Store,
        rooms: Rooms<P, N, C>,
    ) -> Self {
        let now = Instant::now();
        Self {
            config: Arc::new(config),
            config_path: path,
            load,
            rooms,
            admin: store.states(),
            store,
            health: HashMap::new(),
            paths: HashMap::new(),
            decided: HashMap::new(),
            started: now,
            heartbeat: now,
            refused_reload: None,
            behind: None,
            again: false,
            states: HashMap::new(),
        }
    }

    /// Everything that decides what the data plane does.
    pub(super) fn inputs(&self) -> Inputs<'_> {
        Inputs {
            config: &self.config,
            health: &self.health,
            admin: &self.admin,
            paths: &self.paths,
            decided: &self.decided,
            now: SystemTime::now(),
        }
    }

    /// Brings the data plane in line, and logs services whose state changed by it.
    ///
    /// # Errors
    /// The data plane refused. It is tried again at every tick.
    pub fn apply(&mut self, scope: Scope<'_>) -> anyhow::Result<Applied> {
        // After a failure nobody knows what was done: the short way would leave it at that.
        let scope = if self.behind.is_some() { Scope::Everything } else { scope };
        let inputs = Inputs {
            config: &self.config,
            health: &self.health,
            admin: &self.admin,
            paths: &self.paths,
            decided: &self.decided,
            now: SystemTime::now(),
        };
        let applied = self.rooms.plane.apply(&inputs, scope);
        match &applied {
            Ok(applied) => {
                if self.behind.take().is_some() {
                    info!("the data plane is up to date again");
                }
                self.again = applied.again;
                self.decided.extend(applied.decided.iter().cloned());
            }
            Err(error) => {
                let text = format!("{error:#}");
                if self.behind.as_ref() != Some(&text) {
                    error!(error = %text, "the data plane could not be brought up to date: trying again");
                }
                self.behind = Some(text);
                self.again = true;
            }
        }
        self.log_states(scope);
        applied
    }

    fn log_states(&mut self, scope: Scope<'_>) {
        let config = self.config.clone();
        for service in config.services.iter().filter(|service| service.enabled) {
            if let Scope::Servers(servers) = scope
                && !servers.iter().any(|(label, _)| *label == service.label)
            {
                continue;
            }
            // While servers are being judged for the first time its state says little.
            if service.real_servers.iter().any(|real| self.unjudged(service, real)) {
                continue;
            }
            let to = self.service_state(service);
            match self.states.insert(service.label.clone(), to) {
                Some(from) if from != to => {
                    let fallback = to == "red" && service.fallback_server.is_some();
                    info!(service = %service.label, from, to, using_fallback = fallback,
                        "virtual service changed state");
                }
                Some(_) => {}
                None => info!(service = %service.label, state = to, "virtual service was judged"),
            }
        }
        if scope == Scope::Everything {
            self.states
                .retain(|label, _| config.services.iter().any(|s| s.enabled && s.label == *label));
        }
    }

    fn unjudged(&self, service: &Service, real: &RealServer) -> bool {
        let view = self.health.get(&view::label(service, real));
        view.is_none_or(|view| view.health == Health::Unknown)
    }

    fn service_state(&self, service: &Service) -> &'static str {
        let inputs = self.inputs();
        let effective = |real| -> Effective { view::judgement(service, real, &inputs).effective };
        view::state(service.real_servers.iter().map(effective))
    }

    /// Health changed: the servers concerned are in or out before anything else is done.
    pub fn on_health(&mut self, events: Vec<HealthEvent>) {
        let mut servers = Vec::new();
        for HealthEvent { server, view, .. } in events {
            // An event may have been under way while a reload took its server away.
            if self.find(&server.0, &server.1).is_some() {
                self.health.insert(server.clone(), view);
                servers.push(server);
            }
        }
        if !servers.is_empty() {
            self.apply(Scope::Servers(&servers)).ok(); // logged, noted and tried again
        }
    }

    /// Next hops or interfaces changed.
    pub fn on_network(&mut self, events: Vec<NetworkEvent>) {
        let (mut links, mut paths) = (false, Vec::new());
        for event in events {
            match event {
                NetworkEvent::Links => links = true,
                NetworkEvent::Paths(changed) => paths.extend(changed),
            }
        }
        let changed = self.note_paths(paths);
        if links {
            self.apply(Scope::Everything).ok(); // logged, noted and tried again
        } else if !changed.is_empty() {
            self.apply_paths(&changed);
        }
    }

    /// Keeps what is new, and gives the addresses that it is about.
    fn note_paths(&mut self, paths: Vec<(IpAddr, Next)>) -> Vec<IpAddr> {
        let mut changed = Vec::new();
        for (address, next) in paths {
            if self.paths.get(&address) == Some(&next) {
                continue;
            }
            if self.paths.contains_key(&address) || next.problem.is_some() {
                let mac = next.path.and_then(|path| path.dst_mac).map(mac_text);
                info!(%address, mac, problem = next.problem, "next hop changed");
            }
            self.paths.insert(address, next);
            changed.push(address);
        }
        changed
    }

    fn apply_paths(&mut self, changed: &[IpAddr]) {
        let config = self.config.clone();
        let fallback = config.services.iter().any(|service| {
            service.fallback_server.is_some_and(|server| changed.contains(&server.address))
        });
        let servers: Vec<ServerLabel> = config
            .services
            .iter()
            .flat_map(|service| service.real_servers.iter().map(move |real| (service, real)))
            .filter(|(_, real)| changed.contains(&real.address))
            .map(|(service, real)| view::label(service, real))
            .collect();
        let scope = if fallback { Scope::Everything } else { Scope::Servers(&servers) };
        self.apply(scope).ok(); // logged, noted and tried again
    }

    /// Applies again what did not succeed, or what time alone changes.
    pub fn on_tick(&mut self) {
        self.heartbeat = Instant::now();
        if !self.config.outbound_snat.is_empty() {
            let hops = self.rooms.plane.unresolved();
            if !hops.is_empty() {
                self.rooms.network.watch_more(hops);
            }
        }
        if self.again {
            self.apply(Scope::Everything).ok(); // logged, noted and tried again
        }
    }

    /// A server of an enabled service, by its labels.
    pub(super) fn find(&self, service: &str, real: &str) -> Option<(&Service, &RealServer)> {
        let service = self.config.services.iter().find(|s| s.enabled && s.label == service)?;
        Some((service, service.real_servers.iter().find(|r| r.label == real)?))
    }

    /// Forgets health and paths of what the configuration no longer has.
    pub(super) fn forget_absent(&mut self) {
        let config = self.config.clone();
        let enabled = config.services.iter().filter(|service| service.enabled);
        let labels: HashSet<ServerLabel> =
            enabled.flat_map(|s| s.real_servers.iter().map(|real| view::label(s, real))).collect();
        self.health.retain(|label, _| labels.contains(label));
        self.decided.retain(|label, _| labels.contains(label));
        let addresses = super::destinations(&config);
        self.paths.retain(|address, _| addresses.contains(address));
    }

    /// Notes for `status`.
    pub(super) fn notes(&self) -> Vec<String> {
        let reload = self.refused_reload.as_ref().map(|why| {
            format!(
                "the last reload was refused and the configuration before it is in force: {why}"
            )
        });
        let behind = self
            .behind
            .as_ref()
            .map(|why| format!("the data plane does not do all that it should: {why}"));
        reload.into_iter().chain(behind).collect()
    }

    /// How many servers are up, of how many.
    pub(super) fn up_count(&self) -> (usize, usize) {
        let up = |view: &&View| matches!(view.health, Health::Up | Health::Falling { .. });
        let all = self.config.services.iter().filter(|s| s.enabled).map(|s| s.real_servers.len());
        (self.health.values().filter(up).count(), all.sum())
    }
}

/// `02:00:00:00:00:01`.
pub fn mac_text(mac: [u8; 6]) -> String {
    let bytes: Vec<_> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}
