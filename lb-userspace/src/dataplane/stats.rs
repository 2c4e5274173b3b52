//! Counters, and listings of what is in the tables.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aya::Pod;
use lb_common::abi::{
    Action, Addr, AddrV4, AddrV6, Bucket, Counters, Flow, FlowKey, PersistKey, Persistence,
    Verdict, flow_flags,
};
use lb_common::policy::clock;
use lb_common::policy::tcp::state;

use super::maps::{self, Maps};
use super::openings::Openings;
use super::plane::{DataPlane, Inner};
use super::table::Table;
use crate::desired::RealKey;
use crate::reconcile::record::HALF_OPEN_MS;

/// Names of the tables in `stats`.
pub const TABLES: [&str; 10] = [
    "flows_v4",
    "flows_v6",
    "half_open_v4",
    "half_open_v6",
    "half_open_dr_v4",
    "half_open_dr_v6",
    "udp_v4",
    "udp_v6",
    "persistence_v4",
    "persistence_v6",
];

/// All counters at one moment, since the data plane was loaded.
#[derive(Clone, Debug)]
pub struct StatsSnapshot {
    /// Services in the file's order.
    pub services: Vec<ServiceStats>,
    /// Packets by verdict, `transmitted` first.
    pub verdicts: Vec<(&'static str, u64)>,
    /// Tables: name, entries as of the last sweep, capacity.
    pub tables: Vec<(&'static str, u32, u32)>,
}

/// Counters of a service.
#[derive(Clone, Debug)]
pub struct ServiceStats {
    /// Its label.
    pub label: Arc<str>,
    /// Traffic, that of removed real servers included.
    pub traffic: Counters,
    /// Active connections, those of removed real servers included.
    pub active: u64,
    /// Packets not transmitted, by verdict.
    pub drops: Vec<(&'static str, u64)>,
    /// Real servers in the file's order, the fallback server last.
    pub real_servers: Vec<RealStats>,
}

/// Counters of a real server.
#[derive(Clone, Debug)]
pub struct RealStats {
    /// Its label.
    pub label: Arc<str>,
    /// It is the fallback server.
    pub fallback: bool,
    /// Traffic.
    pub traffic: Counters,
    /// Active connections.
    pub active: u64,
    /// Half-open ones.
    pub pending: u64,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The virtual address and port; of an outbound connection, the address and port that it
    /// leaves with.
    pub vip: SocketAddr,
    /// Where it goes: the real server's address and port (in DR, the VIP's port). An outbound
    /// connection goes elsewhere.
    pub server: SocketAddr,
    /// Labels of its service and real server.
    pub service: Arc<str>,
    /// Label of its real server.
    pub real: Arc<str>,
    /// In words.
    pub state: &'static str,
    /// Since its first packet.
    pub age: Duration,
    /// Since the client's last packet.
    pub idle: Duration,
}

/// A persistence entry.
#[derive(Clone, Debug)]
pub struct PersistenceEntry {
    /// The client's address, masked.
    pub client: IpAddr,
    /// How many bits of it count.
    pub prefix_length: u8,
    /// Label of the service.
    pub service: Arc<str>,
    /// Label of the real server.
    pub real: Arc<str>,
    /// Since the client's last new connection.
    pub idle: Duration,
    /// Until the entry ends.
    pub expires_in: Duration,
}

impl DataPlane {
    /// All counters.
    pub fn stats(&self) -> anyhow::Result<StatsSnapshot> {
        self.read_stats().context("cannot read the counters")
    }

    fn read_stats(&self) -> std::io::Result<StatsSnapshot> {
        let maps = self.maps();
        let inner = self.lock();
        let mut retired: HashMap<Arc<str>, Vec<u32>> = HashMap::new();
        for (key, index) in inner.state.retired() {
            retired.entry(key.service).or_default().push(index);
        }
        let services = inner
            .order
            .iter()
            .filter_map(|(label, reals)| service(maps, &inner, label, reals, &retired).transpose())
            .collect::<std::io::Result<_>>()?;
        let mut transmitted = 0;
        for real in inner.state.reals.values() {
            transmitted += packets(maps.traffic(real.index)?);
        }
        transmitted += maps.retired.all()?.into_iter().map(packets).sum::<u64>();
        // These were counted as forwarded before the way out failed (step/transmit.rs).
        let failed: u64 = maps.verdicts.get(Verdict::RedirectFailed as u32)?.iter().sum();
        let mut verdicts = vec![("transmitted", transmitted.saturating_sub(failed))];
        for verdict in Verdict::ALL {
            let copies = maps.verdicts.get(verdict as u32)?;
            verdicts.push((verdict.name(), copies.iter().sum()));
        }
        let entries = match inner.entries {
            Some(entries) => entries,
            None => count(maps)?,
        };
        let capacities = capacities(maps);
        let tables = (0..TABLES.len()).map(|i| (TABLES[i], entries[i], capacities[i])).collect();
        Ok(StatsSnapshot { services, verdicts, tables })
    }

    /// Active connections of a real server; `None`: there is no such real server.
    pub fn active(&self, key: &RealKey) -> anyhow::Result<Option<u64>> {
        let index = self.lock().state.reals.get(key).map(|real| real.index);
        match index {
            Some(index) => Ok(Some(self.maps().connections.get(index)?.active)),
            None => Ok(None),
        }
    }

    /// All connections, half-open ones and UDP flows included; in no order.
    pub fn connections(&self) -> anyhow::Result<Vec<Connection>> {
        let mut listing = self.listing()?;
        let maps = self.maps();
        listing.add(&maps.tcp_v4, "tcp")?;
        listing.add(&maps.half_v4, "tcp")?;
        listing.add_openings(&maps.opening_v4)?;
        listing.add(&maps.udp_v4, "udp")?;
        listing.add(&maps.tcp_v6, "tcp")?;
        listing.add(&maps.half_v6, "tcp")?;
        listing.add_openings(&maps.opening_v6)?;
        listing.add(&maps.udp_v6, "udp")?;
        Ok(listing.found)
    }

    /// All persistence entries; in no order.
    pub fn persistence(&self) -> anyhow::Result<Vec<PersistenceEntry>> {
        let listing = self.listing()?;
        let mut found = Vec::new();
        listing.add_persistence(&self.maps().persist_v4, &mut found)?;
        listing.add_persistence(&self.maps().persist_v6, &mut found)?;
        Ok(found)
    }

    fn listing(&self) -> anyhow::Result<Listing> {
        let now = self.now()?;
        let inner = self.lock();
        let mut reals = vec![None; inner.state.real_indices.bound() as usize];
        for (key, real) in &inner.state.reals {
            reals[real.index as usize] = Some(key.clone());
        }
        let mut persistence = vec![(0, 0); inner.state.service_indices.bound() as usize];
        for service in inner.state.services.values() {
            persistence[service.index as usize] =
                (service.record.persist, service.record.persist_prefix);
        }
        let clock = self.clock();
        Ok(Listing {
            now,
            hz: clock.hz,
            tick_shift: clock.tick_shift,
            reals,
            persistence,
            found: Vec::new(),
        })
    }
}

fn packets(counters: Counters) -> u64 {
    counters.packets_in + counters.packets_out
}

fn service(
    maps: &Maps,
    inner: &Inner,
    label: &Arc<str>,
    order: &[RealKey],
    retired: &HashMap<Arc<str>, Vec<u32>>,
) -> std::io::Result<Option<ServiceStats>> {
    let Some(service) = inner.state.services.get(label) else { return Ok(None) };
    let mut traffic = maps.retired.get(service.index)?;
    let mut active = 0;
    let mut real_servers = Vec::with_capacity(order.len());
    for index in retired.get(label).into_iter().flatten() {
        traffic = maps::add(traffic, maps.traffic(*index)?);
        active += maps.connections.get(*index)?.active;
    }
    for key in order {
        let Some(real) = inner.state.reals.get(key) else { continue };
        let counts = maps.connections.get(real.index)?;
        let own = maps.traffic(real.index)?;
        traffic = maps::add(traffic, own);
        active += counts.active;
        real_servers.push(RealStats {
            label: key.label.clone(),
            fallback: key.fallback,
            traffic: own,
            active: counts.active,
            pending: counts.pending,
        });
    }
    let drops = maps.drops(service.index)?;
    let drops = Verdict::ALL
        .into_iter()
        .filter(|verdict| verdict.action() != Action::Pass)
        .map(|verdict| (verdict.name(), drops.by_verdict[verdict as usize]))
        .collect();
    Ok(Some(ServiceStats { label: label.clone(), traffic, active, drops, real_servers }))
}

fn capacities(maps: &Maps) -> [u32; TABLES.len()] {
    [
        maps.tcp_v4.capacity(),
        maps.tcp_v6.capacity(),
        maps.half_v4.capacity(),
        maps.half_v6.capacity(),
        maps.opening_v4.capacity(),
        maps.opening_v6.capacity(),
        maps.udp_v4.capacity(),
        maps.udp_v6.capacity(),
        maps.persist_v4.capacity(),
        maps.persist_v6.capacity(),
    ]
}

/// Entries by counting: only before the first sweep.
fn count(maps: &Maps) -> std::io::Result<[u32; TABLES.len()]> {
    Ok([
        maps.tcp_v4.count()?,
        maps.tcp_v6.count()?,
        maps.half_v4.count()?,
        maps.half_v6.count()?,
        maps.opening_v4.count()?,
        maps.opening_v6.count()?,
        maps.udp_v4.count()?,
        maps.udp_v6.count()?,
        maps.persist_v4.count()?,
        maps.persist_v6.count()?,
    ])
}

/// An address of the map's family as the standard library's.
trait Standard: Addr {
    fn standard(self) -> IpAddr;
}

impl Standard for AddrV4 {
    fn standard(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(self))
    }
}

impl Standard for AddrV6 {
    fn standard(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from(self))
    }
}

/// What is needed to put entries into words.
struct Listing {
    now: u32,
    hz: u32,
    tick_shift: u32,
    reals: Vec<Option<RealKey>>,
    /// Persistence time in ticks and prefix length, by service's index.
    persistence: Vec<(u32, u8)>,
    found: Vec<Connection>,
}

impl Listing {
    fn since(&self, ticks: u32) -> Duration {
        self.span(clock::age(self.now, ticks))
    }

    fn span(&self, ticks: u32) -> Duration {
        Duration::from_millis(clock::ms_from_ticks(ticks, self.hz, self.tick_shift))
    }

    fn key(&self, real: u32) -> Option<&RealKey> {
        self.reals.get(real as usize)?.as_ref()
    }

    fn add<A: Standard>(
        &mut self,
        table: &Table<FlowKey<A>, Flow<A>>,
        protocol: &'static str,
    ) -> anyhow::Result<()>
    where
        FlowKey<A>: Pod,
        Flow<A>: Pod,
    {
        table.walk(|keys, flows| {
            for (key, flow) in keys.iter().zip(flows) {
                if flow.flags & flow_flags::REPLY != 0 {
                    continue; // the client's direction stands for both
                }
                if let Some(connection) = self.connection(key, flow, protocol) {
                    self.found.push(connection);
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    fn add_openings<A: Standard>(&mut self, table: &Openings<A>) -> anyhow::Result<()>
    where
        Bucket<A>: Pod,
    {
        let mut found = Vec::new();
        table.walk(|key, flow| {
            let silent = self.since(flow.last_seen) > Duration::from_millis(HALF_OPEN_MS);
            found.extend(self.connection(key, flow, "tcp").filter(|_| !silent));
        })?;
        self.found.append(&mut found);
        Ok(())
    }

    fn connection<A: Standard>(
        &self,
        key: &FlowKey<A>,
        flow: &Flow<A>,
        protocol: &'static str,
    ) -> Option<Connection> {
        let real = self.key(flow.real)?;
        let translated = flow.flags & flow_flags::TRANSLATE != 0;
        let port = if translated { flow.to.dport } else { key.dport };
        let mut vip = SocketAddr::new(key.dst.standard(), key.dport.get());
        let mut server = SocketAddr::new(real.address, port.get());
        if flow.flags & flow_flags::OUTBOUND != 0 {
            // The real server is the client; what it goes to comes after what it goes by.
            server = vip;
            vip = SocketAddr::new(flow.to.src.standard(), flow.to.sport.get());
        }
        Some(Connection {
            protocol,
            client: SocketAddr::new(key.src.standard(), key.sport.get()),
            vip,
            server,
            service: real.service.clone(),
            real: real.label.clone(),
            state: if protocol == "udp" { "active" } else { state_name(flow.state) },
            age: self.since(flow.created),
            idle: self.since(flow.last_seen),
        })
    }

    fn add_persistence<A: Standard>(
        &self,
        table: &Table<PersistKey<A>, Persistence>,
        found: &mut Vec<PersistenceEntry>,
    ) -> anyhow::Result<()>
    where
        PersistKey<A>: Pod,
    {
        table.walk(|keys, entries| {
            for (key, entry) in keys.iter().zip(entries) {
                let Some(real) = self.key(entry.real) else { continue };
                let Some((timeout, prefix_length)) = self.persistence.get(key.service as usize)
                else {
                    continue;
                };
                let idle = clock::age(self.now, entry.renewed);
                if idle > *timeout {
                    continue; // the sweeper has not come by yet
                }
                found.push(PersistenceEntry {
                    client: key.client.standard(),
                    prefix_length: *prefix_length,
                    service: real.service.clone(),
                    real: real.label.clone(),
                    idle: self.span(idle),
                    expires_in: self.span(timeout - idle),
                });
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn state_name(number: u8) -> &'static str {
    match number {
        state::OPENING => "opening",
        state::ESTABLISHED => "established",
        state::CLIENT_CLOSED => "client closed",
        state::SERVER_CLOSED => "server closed",
        state::CLOSED => "closed",
        state::RESET => "reset",
        _ => "unknown",
    }
}
