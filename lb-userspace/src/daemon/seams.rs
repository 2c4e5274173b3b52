//! What the event loop needs of the rooms around it. The real ones are in [`super::adapters`];
//! tests use stand-ins, so that the loop runs without a kernel, a network or a clock.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::time::SystemTime;

use super::rotation::Effective;
use crate::admin::{AdminState, ServerLabel};
use crate::api::model::{Connections, Finding, Interface, PersistenceList, TableStats, Traffic};
use crate::api::protocol::Filter;
use crate::config::model::{Config, RealServer, Service};
use crate::health::{Health, Outcome, View};
use crate::net::Path;

/// Work for a thread that may block.
pub type Job<T> = Box<dyn FnOnce() -> anyhow::Result<T> + Send>;

/// A future that owns what it needs.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Everything that decides what the data plane does.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// Judged health; a server that is missing has not been judged.
    pub health: &'a HashMap<ServerLabel, View>,
    /// Servers that are not online.
    pub admin: &'a HashMap<ServerLabel, AdminState>,
    /// Next hops of real and fallback servers.
    pub paths: &'a HashMap<IpAddr, Next>,
    /// What the data plane made of each server the last time.
    pub decided: &'a HashMap<ServerLabel, Effective>,
    /// The time, for slow start.
    pub now: SystemTime,
}

/// What is known of the way to an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Next {
    /// The next hop, as far as it is known.
    pub path: Option<Path>,
    /// Why packets cannot be sent there, in words.
    pub problem: Option<String>,
}

/// How much may have changed since the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Anything.
    Everything,
    /// Health or admin state of these servers only: the short way.
    Servers(&'a [ServerLabel]),
}

/// What applying did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Map writes.
    pub writes: usize,
    /// Something changes by time alone (slow start): apply again soon.
    pub again: bool,
    /// What became of each server of the services concerned.
    pub decided: Vec<(ServerLabel, Effective)>,
}

/// What one look at the data plane found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Traffic of each real server in the configuration.
    pub reals: HashMap<ServerLabel, Traffic>,
    /// Traffic of each service's fallback server.
    pub fallbacks: HashMap<String, Traffic>,
    /// Traffic of each service, servers that were taken away included.
    pub services: HashMap<String, Traffic>,
    /// Packets of each service that were not transmitted, by verdict.
    pub drops: HashMap<String, BTreeMap<String, u64>>,
    /// Packets by verdict.
    pub verdicts: BTreeMap<String, u64>,
    /// How full tables are.
    pub tables: BTreeMap<String, TableStats>,
}

/// The data plane.
pub trait Plane: Send + 'static {
    /// Makes the data plane do what the inputs say. After an error it still does what it did
    /// before, or part of the new, and the next call tries again.
    ///
    /// # Errors
    /// The kernel refused a write, or the inputs do not fit the maps.
    fn apply(&mut self, inputs: &Inputs<'_>, scope: Scope<'_>) -> anyhow::Result<Applied>;

    /// Next hops, beyond those of the configuration's servers, that the data plane has missed since
    /// the last time that this was asked.
    fn unresolved(&mut self) -> Vec<IpAddr> {
        Vec::new()
    }

    /// Counters and fill levels.
    ///
    /// # Errors
    /// A map cannot be read.
    fn snapshot(&mut self) -> anyhow::Result<Snapshot>;

    /// Connections of a server now.
    ///
    /// # Errors
    /// A map cannot be read.
    fn active(&self, service: &Service, real: &RealServer) -> anyhow::Result<u64>;

    /// Where it is attached, and how.
    fn interfaces(&self) -> Vec<Interface>;

    /// Removes what has expired and counts again. Runs beside [`Plane::apply`].
    fn sweep(&mut self) -> Job<()>;

    /// Lists connections.
    fn connections(&self, filter: Filter) -> Job<Connections>;

    /// Lists persistence entries.
    fn persistence(&self, filter: Filter) -> Job<PersistenceList>;
}

/// The network.
pub trait Network: Send + 'static {
    /// Watches the ways to every server of the configuration, and to no others.
    fn watch(&mut self, config: &Config);

    /// Watches the ways to these as well, from now on: neighbours of outbound connections.
    fn watch_more(&mut self, _hops: Vec<IpAddr>) {}

    /// Puts the configuration's managed VIPs on interfaces and announces them; takes away those
    /// that medlb added and the configuration no longer has. That has begun when this returns; the
    /// future ends when it is done, and may be dropped.
    fn set_vips(&mut self, config: &Config) -> Later<()>;

    /// What `doctor` should say of interfaces and sysctls.
    fn doctor(&self, config: &Config) -> Later<Vec<Finding>>;

    /// Name of an interface.
    fn interface_name(&self, ifindex: u32) -> Option<String>;
}

/// The health checks.
pub trait Checks: Send + 'static {
    /// Checks every real server of the enabled services, and no others.
    fn follow(&mut self, config: &Config);

    /// What is known of every server, with its last outcome alone.
    fn views(&self) -> HashMap<ServerLabel, View>;

    /// What is known of a server, with all its outcomes.
    fn view(&self, service: &str, real: &str) -> Option<View>;

    /// Checks a server at once; what came out, and what is known after it. None: it is not checked.
    fn check_now(&self, service: &str, real: &str) -> Later<Option<(Outcome, View)>>;
}

/// A server's judged health changed.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthEvent {
    /// Which.
    pub server: ServerLabel,
    /// Before.
    pub old: Health,
    /// Everything that is known now.
    pub view: View,
}

/// The network changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkEvent {
    /// The ways to these addresses changed, or are known for the first time.
    Paths(Vec<(IpAddr, Next)>),
    /// Interfaces changed: addresses, MTU, or whether they are there.
    Links,
}
