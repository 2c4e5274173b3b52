//! (configuration, health, admin state, next hops) -> desired state of the data plane: pure.

mod outbound;
mod slots;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lb_common::abi::{mode, real_flags};

use crate::config::model::{self, Config, ForwardingMethod, Protocol};
use crate::health::{Health, ProbeResult, View};
use crate::net::Path;

pub use outbound::{LABEL_PREFIX, Outbound};
pub use slots::Slots;

/// A real server of a service, by their labels.
pub type ServerId = (String, String);

/// The label under which a service's fallback server is counted. Configured labels are compared
/// within the service, so a real server of this name would be another one: its key differs by
/// [`RealKey::fallback`].
pub const FALLBACK_LABEL: &str = "fallback";

/// In [`Inputs::adopted`]: the server was in the file when the data plane was first loaded. With
/// [`real_flags::ACCEPT`], and a bit that no real server's flags have.
pub const FIRST_START: u32 = real_flags::ACCEPT | 1 << 31;

/// What the operator has said of a real server by command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admin {
    /// In use as far as health allows.
    #[default]
    Online,
    /// No new connections.
    Drain,
    /// Out at once; established connections are treated as if it had failed.
    Halt,
}

/// What becomes of a real server, all things considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effective {
    /// Takes new connections.
    InRotation,
    /// Takes none, keeps those it has.
    Draining,
    /// Neither.
    Out,
}

/// Everything that the desired state follows from.
pub struct Inputs<'a> {
    /// The file.
    pub config: &'a Config,
    /// Judged health.
    pub health: &'a HashMap<ServerId, View>,
    /// Admin state; those that are missing are online.
    pub admin: &'a HashMap<ServerId, Admin>,
    /// Next hops by real server's address.
    pub paths: &'a HashMap<IpAddr, Path>,
    /// Interfaces that medlb is attached to, and others that paths lead through.
    pub links: &'a [Link],
    /// What an earlier daemon had decided, as it was when this one started: it holds for servers
    /// that were not judged since.
    pub adopted: &'a HashMap<ServerId, u32>,
    /// Now, for slow start.
    pub now: SystemTime,
}

/// An interface that packets can leave by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index.
    pub ifindex: u32,
    /// MAC address.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u32,
}

/// What the data plane should do.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Enabled services in file order.
    pub services: Vec<Service>,
    /// Interfaces, without duplicates.
    pub links: Vec<Link>,
    /// Connections that real servers open themselves.
    pub outbound: Vec<Outbound>,
    /// The desired state changes by itself after this long: a slow start is under way.
    pub again_in: Option<Duration>,
}

impl Desired {
    /// Everything that has a service's record: the file's services, and what stands for outbound
    /// SNAT.
    pub fn records(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().chain(self.outbound.iter().map(|outbound| &outbound.service))
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its label.
    pub label: Arc<str>,
    /// The VIP.
    pub address: IpAddr,
    /// Ports, sorted and disjoint.
    pub ports: Vec<RangeInclusive<u16>>,
    /// IP protocols.
    pub protocol: Protocol,
    /// One of [`mode`]'s.
    pub mode: u8,
    /// Persistence.
    pub persistence: Option<model::Persistence>,
    /// Idle time of established TCP connections.
    pub idle: Duration,
    /// Idle time of UDP flows.
    pub udp_idle: Duration,
    /// SNAT source; unspecified when none is known (yet) or none is needed.
    pub source: Option<IpAddr>,
    /// SNAT ports.
    pub snat_ports: RangeInclusive<u16>,
    /// Entries for a server that went down are dropped.
    pub drop_persistence: bool,
    /// Real servers in file order, the fallback server last.
    pub reals: Vec<Real>,
    /// How new connections choose among them.
    pub slots: Slots,
    /// The fallback server's position in `reals`.
    pub fallback: Option<usize>,
}

/// What makes a real server the same one across reloads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RealKey {
    /// The service's label.
    pub service: Arc<str>,
    /// Its own label.
    pub label: Arc<str>,
    /// Its address.
    pub address: IpAddr,
    /// Its port; 0: the one that the client asked for.
    pub port: u16,
    /// One of [`mode`]'s.
    pub mode: u8,
    /// It is the service's fallback server.
    pub fallback: bool,
}

/// A real server.
#[derive(Clone, Debug, PartialEq)]
pub struct Real {
    /// Its identity.
    pub key: RealKey,
    /// `ACCEPT`, `ACCEPT_PERSISTENT` and `RESET` of [`real_flags`].
    pub flags: u32,
    /// What the flags amount to.
    pub effective: Effective,
    /// The next hop, when it is known.
    pub hop: Option<NextHop>,
    /// No new ones from this many connections on; 0: no limit.
    pub maximum_connections: u32,
    /// New ones again from this many on.
    pub minimum_connections: u32,
}

/// Where a real server's packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Egress interface.
    pub ifindex: u32,
    /// Identifier of the tag that packets get, 0: none.
    pub vlan: u16,
    /// MAC address to send from.
    pub src_mac: [u8; 6],
    /// The neighbour's MAC address.
    pub dst_mac: [u8; 6],
    /// The egress interface's MTU, in bytes; 0: not checked.
    pub mtu: u32,
}

/// The desired state. Never fails: what cannot be (yet) is left out of rotation.
pub fn desired(inputs: &Inputs<'_>) -> Desired {
    let mut again_in = None;
    let enabled = inputs.config.services.iter().filter(|service| service.enabled);
    let services = enabled.map(|s| service(inputs, s, &mut again_in)).collect();
    Desired {
        services,
        links: links(inputs),
        outbound: outbound::outbound(inputs.config),
        again_in,
    }
}

/// The given interfaces, and those that only paths name: of these the MTU is not known.
fn links(inputs: &Inputs<'_>) -> Vec<Link> {
    let mut paths: Vec<&Path> = inputs.paths.values().collect();
    paths.sort_by_key(|path| path.ifindex);
    let unknown =
        paths.iter().map(|path| Link { ifindex: path.ifindex, mac: path.src_mac, mtu: 0 });
    let mut links: Vec<Link> = Vec::with_capacity(inputs.links.len());
    for link in inputs.links.iter().copied().chain(unknown) {
        if links.iter().all(|l| l.ifindex != link.ifindex) {
            links.push(link);
        }
    }
    links
}

fn service(
    inputs: &Inputs<'_>,
    service: &model::Service,
    again_in: &mut Option<Duration>,
) -> Service {
    let label: Arc<str> = service.label.as_str().into();
    let judged = service
        .real_servers
        .iter()
        .any(|server| view(inputs, service, server).is_some_and(|v| v.health != Health::Unknown));
    let mut reals: Vec<Real> =
        service.real_servers.iter().map(|s| real(inputs, service, &label, s, judged)).collect();
    let slots = slots::slots(inputs, service, &reals, again_in);
    let fallback = service.fallback_server.map(|server| {
        reals.push(fallback(inputs, service, &label, server));
        reals.len() - 1
    });
    Service {
        label,
        address: service.address,
        ports: service.ports.clone(),
        protocol: service.protocol,
        mode: mode_of(service.forwarding_method),
        persistence: service.persistence,
        idle: service.idle_timeout,
        udp_idle: service.udp_idle_timeout,
        source: source(inputs, service),
        snat_ports: inputs.config.global.snat_ports.clone(),
        drop_persistence: !service.on_down.keep_persistence,
        reals,
        slots,
        fallback,
    }
}

/// The number of a forwarding method.
pub fn mode_of(method: ForwardingMethod) -> u8 {
    match method {
        ForwardingMethod::Dr => mode::DR,
        ForwardingMethod::Nat => mode::NAT,
        ForwardingMethod::Snat => mode::SNAT,
    }
}

/// The file's source address, else that which the kernel would use towards the first server that
/// has a path.
fn source(inputs: &Inputs<'_>, service: &model::Service) -> Option<IpAddr> {
    if service.forwarding_method != ForwardingMethod::Snat {
        return None;
    }
    service.source_address.or_else(|| {
        service
            .real_servers
            .iter()
            .filter_map(|server| inputs.paths.get(&server.address)?.source)
            .next()
    })
}

fn id(service: &model::Service, server: &model::RealServer) -> ServerId {
    (service.label.clone(), server.label.clone())
}

fn view<'a>(
    inputs: &'a Inputs<'_>,
    service: &model::Service,
    server: &model::RealServer,
) -> Option<&'a View> {
    inputs.health.get(&id(service, server))
}

fn real(
    inputs: &Inputs<'_>,
    service: &model::Service,
    label: &Arc<str>,
    server: &model::RealServer,
    judged: bool,
) -> Real {
    let id = id(service, server);
    let situation = Situation {
        view: inputs.health.get(&id),
        admin: inputs.admin.get(&id).copied().unwrap_or_default(),
        adopted: inputs.adopted.get(&id).copied(),
        service_judged: judged,
        weight: server.weight,
        reset: service.on_down.reset_established,
        keep_persistent: service.drain_keep_persistent,
    };
    let (effective, flags) = situation.judge();
    Real {
        key: RealKey {
            service: label.clone(),
            label: server.label.as_str().into(),
            address: server.address,
            port: server.port.unwrap_or(0),
            mode: mode_of(service.forwarding_method),
            fallback: false,
        },
        flags,
        effective,
        hop: hop(inputs, service.forwarding_method, server.address),
        maximum_connections: server.maximum_connections,
        minimum_connections: server.minimum_connections,
    }
}

fn fallback(
    inputs: &Inputs<'_>,
    service: &model::Service,
    label: &Arc<str>,
    server: model::FallbackServer,
) -> Real {
    Real {
        key: RealKey {
            service: label.clone(),
            label: FALLBACK_LABEL.into(),
            address: server.address,
            port: server.port.unwrap_or(0),
            mode: mode_of(service.forwarding_method),
            fallback: true,
        },
        // No check watches it: it is always good for what nobody else can take.
        flags: real_flags::ACCEPT,
        effective: Effective::InRotation,
        hop: hop(inputs, service.forwarding_method, server.address),
        maximum_connections: 0,
        minimum_connections: 0,
    }
}

fn hop(inputs: &Inputs<'_>, method: ForwardingMethod, address: IpAddr) -> Option<NextHop> {
    let path = inputs.paths.get(&address)?;
    let dr = method == ForwardingMethod::Dr;
    if dr && !path.on_link {
        return None; // behind a router, which would send the VIP's packets back to us
    }
    let mtu = inputs.links.iter().find(|l| l.ifindex == path.ifindex).map_or(0, |l| l.mtu);
    Some(NextHop {
        ifindex: path.ifindex,
        vlan: path.vlan,
        src_mac: path.src_mac,
        dst_mac: path.dst_mac?,
        mtu: if dr { 0 } else { mtu },
    })
}

/// What decides over one real server.
struct Situation<'a> {
    view: Option<&'a View>,
    admin: Admin,
    adopted: Option<u32>,
    service_judged: bool,
    weight: u16,
    reset: bool,
    keep_persistent: bool,
}

impl Situation<'_> {
    fn judge(&self) -> (Effective, u32) {
        let out = (Effective::Out, if self.reset { real_flags::RESET } else { 0 });
        let persistent = if self.keep_persistent { real_flags::ACCEPT_PERSISTENT } else { 0 };
        if self.admin == Admin::Halt {
            return out;
        }
        let health = self.view.map_or(Health::Unknown, |view| view.health);
        match health {
            Health::Down | Health::Rising { .. } => return out,
            Health::Unknown => return self.unjudged(persistent),
            Health::Up | Health::Falling { .. } => {}
        }
        let busy = self.view.is_some_and(|view| view.busy_drain);
        if self.admin == Admin::Drain || busy || self.weight == 0 {
            return (Effective::Draining, persistent);
        }
        (Effective::InRotation, real_flags::ACCEPT)
    }

    /// Before its first judgement a server keeps what an earlier daemon had decided. At a first
    /// start all servers take connections until a check of theirs fails, because refusing everybody
    /// helps nobody. A server that a reload adds takes none while others are known to.
    fn unjudged(&self, persistent: u32) -> (Effective, u32) {
        let draining = (Effective::Draining, persistent);
        if self.admin == Admin::Drain || self.weight == 0 {
            return draining;
        }
        match self.adopted {
            Some(FIRST_START) if self.service_judged && self.failing() => draining,
            Some(flags) if flags & real_flags::ACCEPT != 0 => {
                (Effective::InRotation, real_flags::ACCEPT)
            }
            Some(flags) if flags & real_flags::RESET != 0 && self.reset => {
                (Effective::Out, real_flags::RESET)
            }
            Some(_) => draining,
            None if !self.service_judged => (Effective::InRotation, real_flags::ACCEPT),
            None => draining,
        }
    }

    fn failing(&self) -> bool {
        let last = self.view.and_then(|view| view.history.last());
        last.is_some_and(|outcome| outcome.result == ProbeResult::Fail)
    }
}

#[cfg(test)]
pub mod tests;
