//! The data plane behind its seam.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tracing::{debug, info};

use crate::admin::{AdminState, ServerLabel};
use crate::api::model::{
    Connection, Connections, Interface, PersistenceEntry, PersistenceList, TableStats, Traffic,
};
use crate::api::protocol::Filter;
use crate::daemon::rotation::Effective;
use crate::daemon::seams::{self, Applied, Inputs, Job, Scope, Snapshot};
use crate::dataplane::{self, DataPlane};
use crate::desired::{self, Admin, Desired, Link};
use crate::net::{NetHandle, Path};

/// The loaded programs and maps, and the network's links, which packets leave by.
pub struct Plane {
    plane: Arc<DataPlane>,
    net: NetHandle,
}

impl Plane {
    /// Over an open data plane.
    pub fn new(plane: Arc<DataPlane>, net: NetHandle) -> Self {
        Self { plane, net }
    }

    /// Interfaces that packets can leave by. In generic mode packets are checked after they were
    /// merged (GRO), so their length says nothing: the MTU is left unchecked then.
    fn links(&self) -> Vec<Link> {
        let generic = self.plane.attachments().iter().any(|attachment| !attachment.native);
        let link = |link: crate::net::LinkInfo| {
            let mtu = if generic { 0 } else { link.mtu };
            Some(Link { ifindex: link.ifindex, mac: link.mac?, mtu })
        };
        self.net.links().into_iter().filter_map(link).collect()
    }

    /// Links that the configuration needs: those attached to, and those that servers are behind.
    fn used_links(&self, paths: &HashMap<IpAddr, Path>) -> Vec<Link> {
        let attached = self.plane.attachments();
        let used = |link: &Link| {
            attached.iter().any(|attachment| attachment.ifindex == link.ifindex)
                || paths.values().any(|path| path.ifindex == link.ifindex)
        };
        self.links().into_iter().filter(used).collect()
    }
}

impl seams::Plane for Plane {
    fn apply(&mut self, inputs: &Inputs<'_>, scope: Scope<'_>) -> anyhow::Result<Applied> {
        let paths: HashMap<IpAddr, Path> = inputs
            .paths
            .iter()
            .filter_map(|(address, next)| Some((*address, next.path?)))
            .collect();
        let admin: HashMap<ServerLabel, Admin> =
            inputs.admin.iter().map(|(label, state)| (label.clone(), order(*state))).collect();
        let links = self.used_links(&paths);
        let wanted = desired::desired(&desired::Inputs {
            config: inputs.config,
            health: inputs.health,
            admin: &admin,
            paths: &paths,
            links: &links,
            adopted: self.plane.adopted(),
            now: inputs.now,
        });
        let report = self.plane.apply(&wanted)?;
        debug!(writes = report.writes, retired = report.retired, ?scope, "applied");
        Ok(Applied {
            writes: report.writes,
            again: wanted.again_in.is_some(),
            decided: decided(&wanted, scope),
        })
    }

    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        Ok(snapshot(self.plane.stats()?))
    }

    fn interfaces(&self) -> Vec<Interface> {
        let mode = |native| if native { "native" } else { "generic" }.to_owned();
        let attachments = self.plane.attachments().iter();
        attachments.map(|a| Interface { name: a.name.clone(), xdp_mode: mode(a.native) }).collect()
    }

    fn sweep(&mut self) -> Job<()> {
        let plane = self.plane.clone();
        Box::new(move || {
            let report = plane.sweep()?;
            if !report.released.is_empty() {
                info!(servers = ?report.released, "the last connections of removed servers ended");
            }
            debug!(removed = report.removed, corrected = report.corrected, "swept");
            Ok(())
        })
    }

    fn connections(&self, filter: Filter) -> Job<Connections> {
        let plane = self.plane.clone();
        Box::new(move || {
            let found = plane.connections()?.into_iter();
            let (connections, truncated) = limited(found, &filter, |c| &c.service, connection);
            Ok(Connections { connections, truncated })
        })
    }

    fn persistence(&self, filter: Filter) -> Job<PersistenceList> {
        let plane = self.plane.clone();
        Box::new(move || {
            let found = plane.persistence()?.into_iter();
            let (persistence, truncated) = limited(found, &filter, |e| &e.service, entry);
            Ok(PersistenceList { persistence, truncated })
        })
    }
}

fn order(state: AdminState) -> Admin {
    match state {
        AdminState::Online => Admin::Online,
        AdminState::Drain => Admin::Drain,
        AdminState::Halt => Admin::Halt,
    }
}

/// What became of the servers of the services concerned.
fn decided(wanted: &Desired, scope: Scope<'_>) -> Vec<(ServerLabel, Effective)> {
    let concerned = |service: &&desired::Service| match scope {
        Scope::Everything => true,
        Scope::Servers(servers) => servers.iter().any(|(label, _)| **label == *service.label),
    };
    let services = wanted.services.iter().filter(concerned);
    let reals = services.flat_map(|service| service.reals.iter());
    let place = |real: &desired::Real| match real.effective {
        desired::Effective::InRotation => Effective::InRotation,
        desired::Effective::Draining => Effective::Draining,
        desired::Effective::Out => Effective::Out,
    };
    reals
        .filter(|real| !real.key.fallback)
        .map(|real| ((real.key.service.to_string(), real.key.label.to_string()), place(real)))
        .collect()
}

fn snapshot(stats: dataplane::StatsSnapshot) -> Snapshot {
    let mut out = Snapshot {
        verdicts: stats.verdicts.into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        ..Snapshot::default()
    };
    for (name, entries, capacity) in stats.tables {
        let table = TableStats { entries: entries.into(), capacity: capacity.into() };
        out.tables.insert(name.to_owned(), table);
    }
    for service in stats.services {
        let label = service.label.to_string();
        out.services.insert(label.clone(), traffic(&service.traffic, service.active));
        let drops = service.drops.into_iter().map(|(name, n)| (name.to_owned(), n));
        out.drops.insert(label.clone(), drops.collect());
        for real in service.real_servers {
            let traffic = traffic(&real.traffic, real.active);
            if real.fallback {
                out.fallbacks.insert(label.clone(), traffic);
            } else {
                out.reals.insert((label.clone(), real.label.to_string()), traffic);
            }
        }
    }
    out
}

fn traffic(counters: &lb_common::abi::Counters, active: u64) -> Traffic {
    Traffic {
        packets_in: counters.packets_in,
        bytes_in: counters.bytes_in,
        packets_out: counters.packets_out,
        bytes_out: counters.bytes_out,
        connections_total: counters.connections,
        active_connections: active,
    }
}

/// At most as many as were asked for, of the service that was asked for; and whether there were
/// more.
fn limited<T, U>(
    found: impl Iterator<Item = T>,
    filter: &Filter,
    service: impl Fn(&T) -> &str,
    show: impl Fn(T) -> U,
) -> (Vec<U>, bool) {
    let asked = |entry: &T| filter.service.as_ref().is_none_or(|label| label == service(entry));
    let mut found = found.filter(asked);
    let shown = found.by_ref().take(filter.limit()).map(show).collect();
    (shown, found.next().is_some())
}

fn connection(c: dataplane::Connection) -> Connection {
    Connection {
        service: c.service.to_string(),
        real_server: c.real.to_string(),
        protocol: c.protocol.into(),
        client: c.client.to_string(),
        vip: c.vip.to_string(),
        server: c.server.to_string(),
        state: c.state.into(),
        age_s: c.age.as_secs(),
        idle_s: c.idle.as_secs(),
    }
}

fn entry(e: dataplane::PersistenceEntry) -> PersistenceEntry {
    let whole = if e.client.is_ipv4() { 32 } else { 128 };
    let client = match e.prefix_length {
        bits if bits == whole => e.client.to_string(),
        bits => format!("{}/{bits}", e.client),
    };
    PersistenceEntry {
        service: e.service.to_string(),
        real_server: e.real.to_string(),
        client,
        expires_in_s: e.expires_in.as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_cut_at_its_limit_and_says_so() {
        let found = || [("S", 1), ("T", 2), ("S", 3)].into_iter();
        let cut = |filter| limited(found(), &filter, |(service, _)| service, |(_, n)| n);
        let of =
            |service: Option<&str>, limit| Filter { service: service.map(str::to_owned), limit };
        assert_eq!(cut(of(None, Some(2))), (vec![1, 2], true));
        assert_eq!(cut(of(Some("S"), Some(2))), (vec![1, 3], false));
        assert_eq!(cut(of(None, Some(0))), (vec![1, 2, 3], false));
        assert_eq!(cut(of(Some("U"), None)), (vec![], false));
    }
}
