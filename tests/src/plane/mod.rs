//! A data plane of its own for one test: the real object, loaded by aya, run with PROG_TEST_RUN.
//! Nothing is attached or pinned; maps are filled by hand, so that a fixture does not depend on the
//! control path.

pub mod expect;
pub mod frame;
pub mod pieces;
mod pool;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use aya::maps::{Array, DevMap, HashMap, Map, MapData, PerCpuArray};
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use lb_common::abi::*;

/// What PROG_TEST_RUN gives a program as its ingress interface: the loopback device.
pub const INGRESS: u32 = 1;
/// The MAC address of medlb's interface.
pub const LB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The MAC address of the client, or of its router.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xc];

/// The MAC address of the real server with this index.
pub fn real_mac(index: u32) -> [u8; 6] {
    [2, 0, 0, 0, 1, index as u8]
}

/// XDP actions (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The program failed.
    Aborted,
    /// Dropped.
    Drop,
    /// Left to the kernel.
    Pass,
    /// Sent back out of the same interface.
    Tx,
    /// Sent out of another one.
    Redirect,
}

/// One loaded data plane.
pub struct Plane {
    /// Always there, but while it is dropped.
    ebpf: Option<Ebpf>,
    key: pool::Key,
    /// Name of the program that runs.
    entry: &'static str,
    ports: u32,
    slots: u32,
}

/// Counters of packets, summed over CPUs and real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// By verdict.
    pub verdicts: [u64; VERDICTS],
    /// Counted at a real server, in either direction.
    pub packets: u64,
}

impl Totals {
    /// What moved since `before`, by name.
    pub fn moved(&self, before: &Self) -> Vec<(&'static str, u64)> {
        let verdicts = Verdict::ALL
            .map(|v| (v.name(), self.verdicts[v as usize] - before.verdicts[v as usize]));
        let packets = ("transmitted", self.packets - before.packets);
        verdicts.into_iter().chain([packets]).filter(|(_, n)| *n != 0).collect()
    }
}

/// Counters that are not zero, by name.
pub type Moved = BTreeMap<String, i64>;

/// Path of the object that `cargo xtask build-ebpf` made.
pub fn object() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/medlb.bpf.o").into()
}

impl Plane {
    /// Loads the object with tables for `flows` flows, and a clock that tests can move.
    pub fn load(flows: u32) -> Result<Self> {
        Self::load_with(flows, flows.max(1024), true)
    }

    /// Loads the object with room for `flows` established flows and for `others` half-open and UDP
    /// ones. Without `test_clock` it is the program that production runs.
    pub fn load_with(flows: u32, others: u32, test_clock: bool) -> Result<Self> {
        let key = (flows, others, u32::from(test_clock));
        let ebpf = match pool::take(key) {
            Some(ebpf) => ebpf,
            None => Self::fresh(flows, others, key.2)?,
        };
        let mut plane = Self { ebpf: Some(ebpf), key, entry: "medlb", ports: 0, slots: 0 };
        let me =
            Interface { ifindex: INGRESS, mac: LB_MAC.into(), mtu: 1500, ..Default::default() };
        plane.array("INTERFACES")?.set(1, me, 0)?;
        plane.hash::<u32, u32>("INTERFACE_SLOTS")?.insert(INGRESS, 1, 0)?;
        Ok(plane)
    }

    fn fresh(flows: u32, others: u32, test_clock: u32) -> Result<Ebpf> {
        let mut loader = EbpfLoader::new();
        for name in ["TCP_V4", "TCP_V6"] {
            loader.map_max_entries(name, flows);
        }
        for name in ["HALF_V4", "HALF_V6", "UDP_V4", "UDP_V6", "PERSIST_V4", "PERSIST_V6"] {
            loader.map_max_entries(name, others);
        }
        let buckets = others.div_ceil(PER_BUCKET).next_power_of_two();
        for name in ["OPENING_V4", "OPENING_V6"] {
            loader.map_max_entries(name, buckets);
        }
        let opening_mask = buckets - 1;
        loader.override_global("OPENING_MASK", &opening_mask, true);
        loader.override_global("TEST_CLOCK", &test_clock, true);
        loader.override_global("AYA_LOG_LEVEL", &0u8, true);
        let mut ebpf = loader
            .load_file(object())
            .context("no object: run `cargo xtask build-ebpf` (and be root)")?;
        for name in ["medlb", "medlb_clock"] {
            let program: &mut Xdp = ebpf.program_mut(name).context("program")?.try_into()?;
            verified(program)?;
        }
        Ok(ebpf)
    }

    fn ebpf(&self) -> &Ebpf {
        self.ebpf.as_ref().expect("it goes when the plane is dropped")
    }

    fn ebpf_mut(&mut self) -> &mut Ebpf {
        self.ebpf.as_mut().expect("it goes when the plane is dropped")
    }

    /// From here on the program for drivers that take no jumbo frames.
    ///
    /// # Errors
    /// The verifier refuses it.
    pub fn linear(&mut self) -> Result<()> {
        self.entry = "medlb_linear";
        let entry = self.entry;
        verified(self.ebpf_mut().program_mut(entry).context("program")?.try_into()?)
    }

    /// The load balancer, as the kernel has it.
    pub fn program(&self) -> Result<&Xdp> {
        Ok(self.ebpf().program(self.entry).context("program")?.try_into()?)
    }

    /// An array map.
    pub fn array<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        let map = self.ebpf_mut().map_mut(name).with_context(|| format!("map {name}"))?;
        Ok(Array::try_from(map)?)
    }

    /// A hash map, LRU or not.
    pub fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> Result<HashMap<&mut MapData, K, V>> {
        let map = self.ebpf_mut().map_mut(name).with_context(|| format!("map {name}"))?;
        Ok(HashMap::try_from(map)?)
    }

    /// All buckets of half-open DR connections over IPv4.
    pub fn openings(&mut self) -> Result<Vec<Bucket<AddrV4>>> {
        Ok(self.array("OPENING_V4")?.iter().collect::<Result<_, _>>()?)
    }

    /// The keys of all half-open connections over IPv4, whatever table they are in; of NAT and SNAT
    /// both directions.
    pub fn half_open(&mut self) -> Result<Vec<FlowKey<AddrV4>>> {
        let table = self.hash::<FlowKey<AddrV4>, Flow<AddrV4>>("HALF_V4")?;
        let mut keys = table.keys().collect::<Result<Vec<_>, _>>()?;
        let buckets = self.openings()?;
        let places = buckets.iter().flat_map(|bucket| &bucket.places);
        keys.extend(places.filter(|place| place.server != 0).map(|place| place.key));
        Ok(keys)
    }

    /// A map.
    pub fn map(&self, name: &str) -> Result<&Map> {
        self.ebpf().map(name).with_context(|| format!("map {name}"))
    }

    /// A real server on the ingress interface, one-arm, that takes connections.
    pub fn real(&mut self, index: u32, service: u32, mode: u8, address: IpAddr) -> Result<Real> {
        let real = Real {
            dst_mac: real_mac(index).into(),
            src_mac: LB_MAC.into(),
            interface: 1,
            ifindex: INGRESS,
            flags: real_flags::ACCEPT | real_flags::NEIGHBOUR,
            service,
            mode,
            address: words(address),
            ..Default::default()
        };
        self.set_real(index, real)?;
        self.mark(address, FilterBit::REAL)?;
        Ok(real)
    }

    /// Writes a real server's record.
    pub fn set_real(&mut self, index: u32, real: Real) -> Result<()> {
        Ok(self.array("REALS")?.set(index, real, 0)?)
    }

    /// A service over `reals` (index, weight), with timeouts of an hour and a minute.
    pub fn service(
        &mut self,
        index: u32,
        mode: u8,
        select: u8,
        reals: &[(u32, u32)],
    ) -> Result<Service> {
        let first = self.slots;
        let mut slots: Array<_, Slot> = self.array("SLOTS")?;
        for (i, &(real, weight)) in reals.iter().enumerate() {
            slots.set(first + i as u32, Slot { real, weight }, 0)?;
        }
        self.slots += reals.len() as u32;
        let service = Service {
            flags: service_flags::ENABLED,
            mode,
            select,
            slots_first: first,
            slots_count: reals.len() as u32,
            fallback: NO_REAL,
            idle: 3600,
            half_open: 60,
            closing: 60,
            udp_idle: 300,
            snat_first: 61000,
            snat_count: 4536,
            ..Default::default()
        };
        self.set_service(index, service)?;
        Ok(service)
    }

    /// Writes a service's record into the bank in use.
    pub fn set_service(&mut self, index: u32, service: Service) -> Result<()> {
        Ok(self.array("SERVICES")?.set(index * 2, service, 0)?)
    }

    /// A VIP with its ports: (protocol, first, last, service), sorted.
    pub fn vip(&mut self, address: IpAddr, ports: &[(u8, u16, u16, u32)]) -> Result<()> {
        let run = self.run_of_ports(ports)?;
        match address {
            IpAddr::V4(a) => self.hash("VIPS_V4")?.insert(AddrV4::from(a), run, 0)?,
            IpAddr::V6(a) => self.hash("VIPS_V6")?.insert(AddrV6::from(a), run, 0)?,
        }
        self.mark(address, FilterBit::VIP)
    }

    /// Destination ports of a real server's own connections: (protocol, first, last, real), sorted.
    pub fn outbound(&mut self, source: IpAddr, ports: &[(u8, u16, u16, u32)]) -> Result<()> {
        let run = self.run_of_ports(ports)?;
        match source {
            IpAddr::V4(a) => self.hash("OUTBOUND_V4")?.insert(AddrV4::from(a), run, 0)?,
            IpAddr::V6(a) => self.hash("OUTBOUND_V6")?.insert(AddrV6::from(a), run, 0)?,
        }
        self.mark(source, FilterBit::REAL)
    }

    fn run_of_ports(&mut self, ports: &[(u8, u16, u16, u32)]) -> Result<Vip> {
        let first = self.ports;
        let mut map: Array<_, PortRange> = self.array("PORTS")?;
        for (i, &(protocol, low, high, service)) in ports.iter().enumerate() {
            let range = PortRange {
                low: PortRange::composite(protocol, low),
                high: PortRange::composite(protocol, high),
                service,
                ..Default::default()
            };
            map.set(first + i as u32, range, 0)?;
        }
        self.ports += ports.len() as u32;
        Ok(Vip { first, count: ports.len() as u32 })
    }

    /// Sets a bit of the filter.
    pub fn mark(&mut self, address: IpAddr, bit: u8) -> Result<()> {
        let folded = match address {
            IpAddr::V4(a) => AddrV4::from(a).folded(),
            IpAddr::V6(a) => AddrV6::from(a).folded(),
        };
        let mut map: Array<_, Filter> = self.array("FILTER")?;
        let mut filter = map.get(&0, 0)?;
        filter.buckets[filter_index(folded)] |= bit;
        Ok(map.set(0, filter, 0)?)
    }

    /// Moves the data path's clock forward by `ticks`.
    pub fn advance(&mut self, ticks: u32) -> Result<()> {
        let mut map: Array<_, Meta> = self.array("META")?;
        let mut meta = map.get(&0, 0)?;
        meta.test_clock_offset += ticks;
        Ok(map.set(0, meta, 0)?)
    }

    /// A real server's record.
    pub fn real_record(&mut self, index: u32) -> Result<Real> {
        Ok(self.array("REALS")?.get(&index, 0)?)
    }

    /// Lets packets be redirected to a device by this index of `TX_PORTS`.
    pub fn egress(&mut self, index: u32, ifindex: u32) -> Result<()> {
        let map = self.ebpf_mut().map_mut("TX_PORTS").context("map TX_PORTS")?;
        Ok(DevMap::try_from(map)?.set(index, ifindex, None, 0)?)
    }

    /// Verdicts and packets of the first `reals` real servers: quicker than [`Plane::counters`].
    pub fn totals(&self, reals: u32) -> Result<Totals> {
        let verdicts: PerCpuArray<_, u64> = PerCpuArray::try_from(self.map("VERDICTS")?)?;
        let counters: PerCpuArray<_, Counters> = PerCpuArray::try_from(self.map("COUNTERS")?)?;
        let mut totals = Totals { verdicts: [0; VERDICTS], packets: 0 };
        for (index, total) in totals.verdicts.iter_mut().enumerate() {
            *total = verdicts.get(&(index as u32), 0)?.iter().sum();
        }
        for real in 0..reals {
            for c in counters.get(&real, 0)?.iter() {
                totals.packets += c.packets_in + c.packets_out;
            }
        }
        Ok(totals)
    }

    /// Runs the program once over a frame: the action and the frame as it comes out.
    pub fn run(&mut self, frame: &[u8]) -> Result<(Action, Vec<u8>)> {
        let mut out = Vec::new();
        let action = self.run_into(frame, &mut out)?;
        Ok((action, out))
    }

    /// As [`Plane::run`], into a buffer of the caller's.
    pub fn run_into(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<Action> {
        out.resize(frame.len() + 512, 0);
        let entry = self.entry;
        let program: &mut Xdp =
            self.ebpf_mut().program_mut(entry).context("program")?.try_into()?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(out),
            ..TestRunOptions::default()
        })?;
        out.truncate(result.data_size_out as usize);
        Ok(match result.return_value {
            0 => Action::Aborted,
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Tx,
            4 => Action::Redirect,
            other => anyhow::bail!("unknown XDP action {other}"),
        })
    }

    /// Nanoseconds per run over `repeat` runs, as the kernel measures them.
    pub fn time(&mut self, program: &str, frame: &[u8], repeat: u32) -> Result<f64> {
        let mut out = vec![0; frame.len() + 512];
        let program: &mut Xdp =
            self.ebpf_mut().program_mut(program).context("program")?.try_into()?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            repeat,
            ..TestRunOptions::default()
        })?;
        Ok(result.duration.as_nanos() as f64)
    }

    /// Every counter that is not zero, summed over CPUs: verdicts, real servers' traffic, services'
    /// drops, live connections.
    pub fn counters(&self) -> Result<Moved> {
        let mut all = Moved::new();
        let verdicts: PerCpuArray<_, u64> = PerCpuArray::try_from(self.map("VERDICTS")?)?;
        let counters: PerCpuArray<_, Counters> = PerCpuArray::try_from(self.map("COUNTERS")?)?;
        let drops: PerCpuArray<_, ServiceDrops> =
            PerCpuArray::try_from(self.map("SERVICE_DROPS")?)?;
        let connections: Array<_, Connections> = Array::try_from(self.map("CONNECTIONS")?)?;
        let mut add = |name: String, n: u64| {
            if n != 0 {
                *all.entry(name).or_default() += n as i64;
            }
        };
        for verdict in Verdict::ALL {
            add(verdict.name().into(), verdicts.get(&(verdict as u32), 0)?.iter().sum());
        }
        for real in 0..8 {
            for c in counters.get(&real, 0)?.iter() {
                add(format!("real{real}.packets_in"), c.packets_in);
                add(format!("real{real}.bytes_in"), c.bytes_in);
                add(format!("real{real}.packets_out"), c.packets_out);
                add(format!("real{real}.bytes_out"), c.bytes_out);
                add(format!("real{real}.connections"), c.connections);
            }
            let live = connections.get(&real, 0)?;
            add(format!("real{real}.active"), live.active);
            add(format!("real{real}.pending"), live.pending);
        }
        for service in 0..4 {
            for d in drops.get(&service, 0)?.iter() {
                for verdict in Verdict::ALL {
                    add(
                        format!("service{service}.{}", verdict.name()),
                        d.by_verdict[verdict as usize],
                    );
                }
            }
        }
        Ok(all)
    }

    /// What moved between two readings.
    pub fn moved(before: &Moved, after: &Moved) -> Moved {
        let mut diff = after.clone();
        for (name, n) in before {
            *diff.entry(name.clone()).or_default() -= n;
        }
        diff.retain(|_, n| *n != 0);
        diff
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(ebpf) = self.ebpf.take() {
            pool::give(self.key, ebpf);
        }
    }
}

/// Loads a program; once more where a pending signal ended the verifier's work (EAGAIN).
fn verified(program: &mut Xdp) -> Result<()> {
    for _ in 0..5 {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(ProgramError::AlreadyLoaded) => return Ok(()), // from the pool
            result => return Ok(result?),
        }
    }
    anyhow::bail!("the verifier was interrupted each time")
}

/// An address as [`Real::address`] holds it.
pub fn words(address: IpAddr) -> [Be32; 4] {
    match address {
        IpAddr::V4(a) => AddrV4::from(a).to_words(),
        IpAddr::V6(a) => AddrV6::from(a).to_words(),
    }
}

/// The real server with this index: 10.0.1.index, or fd00:1::index.
pub fn rip(index: u32, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, index as u16).into()
    } else {
        Ipv4Addr::new(10, 0, 1, index as u8).into()
    }
}
