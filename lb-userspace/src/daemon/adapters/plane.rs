//! The data plane behind its seam.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tracing::{debug, info, warn};

use crate::admin::{AdminState, ServerLabel};
use crate::api::model::{
    Connection, Connections, Interface, PersistenceEntry, PersistenceList, TableStats, Traffic,
};
use crate::api::protocol::Filter;
use crate::config::model::{RealServer, Service};
use crate::daemon::rotation::Effective;
use crate::daemon::seams::{self, Applied, Inputs, Job, Scope, Snapshot};
use crate::dataplane::{self, DataPlane};
use crate::desired::{self, Admin, Desired, RealKey};
use crate::net::Path;

/// The loaded programs and maps.
pub struct Plane(Arc<DataPlane>);

impl Plane {
    /// Over an open data plane.
    pub fn new(plane: Arc<DataPlane>) -> Self {
        Self(plane)
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
        let egress: Vec<u32> = paths.values().map(|path| path.ifindex).collect();
        let links = self.0.links(&egress)?;
        let wanted = desired::desired(&desired::Inputs {
            config: inputs.config,
            health: inputs.health,
            admin: &admin,
            paths: &paths,
            links: &links,
            adopted: self.0.adopted(),
            now: inputs.now,
        });
        let report = self.0.apply(&wanted)?;
        debug!(writes = report.writes, retired = report.retired, ?scope, "applied");
        Ok(Applied {
            writes: report.writes,
            again: wanted.again_in.is_some(),
            decided: decided(&wanted, scope),
        })
    }

    fn unresolved(&mut self) -> Vec<IpAddr> {
        self.0.unresolved().unwrap_or_else(|error| {
            warn!(
                error = format!("{error:#}"),
                "outbound connections may wait for their neighbours"
            );
            Vec::new()
        })
    }

    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        Ok(snapshot(self.0.stats()?))
    }

    fn active(&self, service: &Service, real: &RealServer) -> anyhow::Result<u64> {
        let key = RealKey {
            service: service.label.as_str().into(),
            label: real.label.as_str().into(),
            address: real.address,
            port: real.port.unwrap_or(0),
            mode: desired::mode_of(service.forwarding_method),
            fallback: false,
        };
        Ok(self.0.active(&key)?.unwrap_or(0))
    }

    fn interfaces(&self) -> Vec<Interface> {
        let mode = |native| if native { "native" } else { "generic" }.to_owned();
        let attachments = self.0.attachments().iter();
        attachments.map(|a| Interface { name: a.name.clone(), xdp_mode: mode(a.native) }).collect()
    }

    fn sweep(&mut self) -> Job<()> {
        let plane = self.0.clone();
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
        let plane = self.0.clone();
        Box::new(move || {
            let found = plane.connections()?.into_iter();
            let (connections, truncated) = limited(found, &filter, |c| &c.service, connection);
            Ok(Connections { connections, truncated })
        })
    }

    fn persistence(&self, filter: Filter) -> Job<PersistenceList> {
        let plane = self.0.clone();
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
        let pending = service.real_servers.iter().map(|real| real.pending).sum();
        out.services.insert(label.clone(), traffic(&service.traffic, service.active, pending));
        let drops = service.drops.into_iter().map(|(name, n)| (name.to_owned(), n));
        out.drops.insert(label.clone(), drops.collect());
        for real in service.real_servers {
            let traffic = traffic(&real.traffic, real.active, real.pending);
            if real.fallback {
                out.fallbacks.insert(label.clone(), traffic);
            } else {
                out.reals.insert((label.clone(), real.label.to_string()), traffic);
            }
        }
    }
    out
}

fn traffic(counters: &lb_common::abi::Counters, active: u64, half_open: u64) -> Traffic {
    Traffic {
        packets_in: counters.packets_in,
        bytes_in: counters.bytes_in,
        packets_out: counters.packets_out,
        bytes_out: counters.bytes_out,
        connections_total: counters.connections,
        active_connections: active,
        half_open_connections: half_open,
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
        idle_s: e.idle.as_secs(),
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
