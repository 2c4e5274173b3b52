//! Every map of the data plane by name and type: this side's only list of them. The data path's
//! is lb-ebpf/src/maps.rs.

use std::io;
use std::path::Path;

use lb_common::abi::{
    AddrV4, AddrV6, Connections, Counters, Filter, Flow, FlowKey, Interface, Meta, Name,
    PersistKey, Persistence, PortRange, Real, Service, ServiceDrops, Slot, Vip,
};

use super::openings::Openings;
use super::table::{List, PerCpu, Table};

/// Flows of one protocol and tier, IPv4.
pub type FlowsV4 = Table<FlowKey<AddrV4>, Flow<AddrV4>>;
/// The same, IPv6.
pub type FlowsV6 = Table<FlowKey<AddrV6>, Flow<AddrV6>>;

/// Names of all maps that the object defines, for pinning.
pub const NAMES: [&str; 38] = [
    "TCP_V4",
    "TCP_V6",
    "HALF_V4",
    "HALF_V6",
    "OPENING_V4",
    "OPENING_V6",
    "UDP_V4",
    "UDP_V6",
    "PERSIST_V4",
    "PERSIST_V6",
    "VIPS_V4",
    "VIPS_V6",
    "PORTS",
    "SERVICES",
    "SERVICE_BANKS",
    "SLOTS",
    "REALS",
    "CONNECTIONS",
    "CURSORS",
    "SNAT_CURSORS",
    "COUNTERS",
    "SERVICE_DROPS",
    "VERDICTS",
    "INTERFACES",
    "INTERFACE_SLOTS",
    "TX_PORTS",
    "TX_PORTS_LINEAR",
    "FILTER",
    "META",
    "PRESSURE",
    "SERVICE_NAMES",
    "REAL_NAMES",
    "FRAG_V4",
    "FRAG_V6",
    "OUTBOUND_V4",
    "OUTBOUND_V6",
    "UNRESOLVED_V4",
    "UNRESOLVED_V6",
];

/// Traffic of real servers that are gone, by service; made by the loader, not by the object,
/// because the data path has no use for it. The last element is for services that are gone.
pub const RETIRED: &str = "RETIRED";
/// How many services there can be: the size of `SERVICE_BANKS`.
pub const SERVICES: u32 = 4096;
/// Size of [`RETIRED`].
pub const RETIRED_SIZE: u32 = SERVICES + 1;

/// All maps, open.
pub struct Maps {
    /// Established TCP flows.
    pub tcp_v4: FlowsV4,
    /// The same, IPv6.
    pub tcp_v6: FlowsV6,
    /// Half-open NAT and SNAT flows.
    pub half_v4: FlowsV4,
    /// The same, IPv6.
    pub half_v6: FlowsV6,
    /// Half-open DR connections.
    pub opening_v4: Openings<AddrV4>,
    /// The same, IPv6.
    pub opening_v6: Openings<AddrV6>,
    /// UDP flows.
    pub udp_v4: FlowsV4,
    /// The same, IPv6.
    pub udp_v6: FlowsV6,
    /// Persistence entries.
    pub persist_v4: Table<PersistKey<AddrV4>, Persistence>,
    /// The same, IPv6.
    pub persist_v6: Table<PersistKey<AddrV6>, Persistence>,
    /// Virtual addresses.
    pub vips_v4: Table<AddrV4, Vip>,
    /// The same, IPv6.
    pub vips_v6: Table<AddrV6, Vip>,
    /// Real servers whose own connections are translated.
    pub outbound_v4: Table<AddrV4, Vip>,
    /// The same, IPv6.
    pub outbound_v6: Table<AddrV6, Vip>,
    /// Next hops of outbound connections without a MAC address, and when they were missed, in ticks.
    pub unresolved_v4: Table<AddrV4, u32>,
    /// The same, IPv6.
    pub unresolved_v6: Table<AddrV6, u32>,
    /// Runs of ports.
    pub ports: List<PortRange>,
    /// Two banks for each service.
    pub services: List<Service>,
    /// The bank in use, by service.
    pub service_banks: List<u32>,
    /// Selection tables.
    pub slots: List<Slot>,
    /// Real servers.
    pub reals: List<Real>,
    /// Live connection counts, by real server.
    pub connections: List<Connections>,
    /// Traffic, by real server.
    pub counters: PerCpu<Counters>,
    /// Packets not transmitted, by service.
    pub service_drops: PerCpu<ServiceDrops>,
    /// Packets not transmitted, by verdict.
    pub verdicts: PerCpu<u64>,
    /// Interfaces.
    pub interfaces: List<Interface>,
    /// Kernel's interface index to index in `interfaces`.
    pub interface_slots: Table<u32, u32>,
    /// Egress by index in `interfaces`: the kernel's interface index and no program.
    pub tx_ports: List<[u32; 2]>,
    /// The same, for the program without `frags`.
    pub tx_ports_linear: List<[u32; 2]>,
    /// Addresses that may be ours.
    pub filter: List<Filter>,
    /// Facts about the data plane.
    pub meta: List<Meta>,
    /// When the established table was last found full, in ticks; IPv4, IPv6.
    pub pressure: List<u32>,
    /// Labels of services.
    pub service_names: List<Name>,
    /// Labels of real servers.
    pub real_names: List<Name>,
    /// See [`RETIRED`].
    pub retired: List<Counters>,
}

impl Maps {
    /// Opens the maps pinned in `dir`.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            tcp_v4: Table::open(dir, "TCP_V4")?,
            tcp_v6: Table::open(dir, "TCP_V6")?,
            half_v4: Table::open(dir, "HALF_V4")?,
            half_v6: Table::open(dir, "HALF_V6")?,
            opening_v4: Openings::open(dir, "OPENING_V4")?,
            opening_v6: Openings::open(dir, "OPENING_V6")?,
            udp_v4: Table::open(dir, "UDP_V4")?,
            udp_v6: Table::open(dir, "UDP_V6")?,
            persist_v4: Table::open(dir, "PERSIST_V4")?,
            persist_v6: Table::open(dir, "PERSIST_V6")?,
            vips_v4: Table::open(dir, "VIPS_V4")?,
            vips_v6: Table::open(dir, "VIPS_V6")?,
            outbound_v4: Table::open(dir, "OUTBOUND_V4")?,
            outbound_v6: Table::open(dir, "OUTBOUND_V6")?,
            unresolved_v4: Table::open(dir, "UNRESOLVED_V4")?,
            unresolved_v6: Table::open(dir, "UNRESOLVED_V6")?,
            ports: List::open(dir, "PORTS")?,
            services: List::open(dir, "SERVICES")?,
            service_banks: List::open(dir, "SERVICE_BANKS")?,
            slots: List::open(dir, "SLOTS")?,
            reals: List::open(dir, "REALS")?,
            connections: List::open(dir, "CONNECTIONS")?,
            counters: PerCpu::open(dir, "COUNTERS")?,
            service_drops: PerCpu::open(dir, "SERVICE_DROPS")?,
            verdicts: PerCpu::open(dir, "VERDICTS")?,
            interfaces: List::open(dir, "INTERFACES")?,
            interface_slots: Table::open(dir, "INTERFACE_SLOTS")?,
            tx_ports: List::open(dir, "TX_PORTS")?,
            tx_ports_linear: List::open(dir, "TX_PORTS_LINEAR")?,
            filter: List::open(dir, "FILTER")?,
            meta: List::open(dir, "META")?,
            pressure: List::open(dir, "PRESSURE")?,
            service_names: List::open(dir, "SERVICE_NAMES")?,
            real_names: List::open(dir, "REAL_NAMES")?,
            retired: List::open(dir, RETIRED)?,
        })
    }

    /// A real server's traffic, summed over CPUs.
    pub fn traffic(&self, real: u32) -> io::Result<Counters> {
        Ok(self.counters.get(real)?.iter().fold(Counters::default(), |sum, c| add(sum, *c)))
    }

    /// Packets of a service that were not transmitted, by verdict, summed over CPUs.
    pub fn drops(&self, service: u32) -> io::Result<ServiceDrops> {
        let mut sum = ServiceDrops { by_verdict: [0; _] };
        for copy in self.service_drops.get(service)? {
            for (total, one) in sum.by_verdict.iter_mut().zip(copy.by_verdict) {
                *total += one;
            }
        }
        Ok(sum)
    }
}

/// The sum of two counters.
pub fn add(a: Counters, b: Counters) -> Counters {
    Counters {
        packets_in: a.packets_in + b.packets_in,
        bytes_in: a.bytes_in + b.bytes_in,
        packets_out: a.packets_out + b.packets_out,
        bytes_out: a.bytes_out + b.bytes_out,
        connections: a.connections + b.connections,
    }
}
