//! Every map of the data plane, and its typed accessor: the one place on this side where maps are
//! touched.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_NOEXIST, xdp_action},
    btf_maps::{Array, DevMap, HashMap, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{abi::*, policy::clock::expired};

use crate::{
    clock::constant,
    family::{Family, V4, V6},
    step::parse::Packet,
};

// Sizes are defaults; the loader sets those of the flow tables from the configuration.

/// Established TCP flows.
#[btf_map]
static TCP_V4: HashMap<FlowKey<AddrV4>, Flow<AddrV4>, 262144> = HashMap::new();
#[btf_map]
static TCP_V6: HashMap<FlowKey<AddrV6>, Flow<AddrV6>, 262144> = HashMap::new();
/// Half-open DR connections; with `HALF` all that a flood of SYNs can fill. Mapped by nobody: the flag
/// has the kernel begin the array at a page, so that a bucket lies in two cache lines and not three.
#[btf_map]
static OPENING_V4: Array<Bucket<AddrV4>, 32768, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
static OPENING_V6: Array<Bucket<AddrV6>, 32768, { BPF_F_MMAPABLE as usize }> = Array::new();
/// Half-open NAT and SNAT flows.
#[btf_map]
static HALF_V4: LruHashMap<FlowKey<AddrV4>, Flow<AddrV4>, 65536> = LruHashMap::new();
#[btf_map]
static HALF_V6: LruHashMap<FlowKey<AddrV6>, Flow<AddrV6>, 65536> = LruHashMap::new();
/// UDP flows.
#[btf_map]
static UDP_V4: LruHashMap<FlowKey<AddrV4>, Flow<AddrV4>, 65536> = LruHashMap::new();
#[btf_map]
static UDP_V6: LruHashMap<FlowKey<AddrV6>, Flow<AddrV6>, 65536> = LruHashMap::new();
/// Fragmented packets under way.
#[btf_map]
static FRAG_V4: LruHashMap<FragmentKey<AddrV4>, Flow<AddrV4>, 4096> = LruHashMap::new();
#[btf_map]
static FRAG_V6: LruHashMap<FragmentKey<AddrV6>, Flow<AddrV6>, 4096> = LruHashMap::new();
/// The VIP that a service's checks go through (IPv4 in the first word), by service; zero: none.
#[btf_map]
static CHECK_VIPS: Array<[Be32; 4], 4096> = Array::new();
/// Checks under way through a VIP: the answer's addresses and ports -> the real server's address.
#[btf_map]
static CHECKS_V4: LruHashMap<FlowKey<AddrV4>, AddrV4, 16384> = LruHashMap::new();
#[btf_map]
static CHECKS_V6: LruHashMap<FlowKey<AddrV6>, AddrV6, 16384> = LruHashMap::new();
/// Persistence entries.
#[btf_map]
static PERSIST_V4: LruHashMap<PersistKey<AddrV4>, Persistence, 65536> = LruHashMap::new();
#[btf_map]
static PERSIST_V6: LruHashMap<PersistKey<AddrV6>, Persistence, 65536> = LruHashMap::new();
/// Virtual addresses.
#[btf_map]
static VIPS_V4: HashMap<AddrV4, Vip, 4096> = HashMap::new();
#[btf_map]
static VIPS_V6: HashMap<AddrV6, Vip, 4096> = HashMap::new();
/// Real servers whose own connections are translated (outbound SNAT).
#[btf_map]
static OUTBOUND_V4: HashMap<AddrV4, Vip, 4096> = HashMap::new();
#[btf_map]
static OUTBOUND_V6: HashMap<AddrV6, Vip, 4096> = HashMap::new();
/// Next hops of outbound connections whose MAC address the kernel did not know, and when that was,
/// in ticks. The daemon has them resolved.
#[btf_map]
static UNRESOLVED_V4: LruHashMap<AddrV4, u32, 1024> = LruHashMap::new();
#[btf_map]
static UNRESOLVED_V6: LruHashMap<AddrV6, u32, 1024> = LruHashMap::new();
#[btf_map]
static PORTS: Array<PortRange, 65536> = Array::new();
/// Two banks for each service; `SERVICE_BANKS` says which is in use.
#[btf_map]
static SERVICES: Array<Service, 8192> = Array::new();
#[btf_map]
static SERVICE_BANKS: Array<u32, 4096> = Array::new();
#[btf_map]
static SLOTS: Array<Slot, 1048576> = Array::new();
#[btf_map]
static REALS: Array<Real, 16384> = Array::new();
#[btf_map]
static CONNECTIONS: Array<Connections, 16384> = Array::new();
/// By service.
#[btf_map]
static CURSORS: Array<u64, 4096> = Array::new();
/// By real server: SNAT ports are given out in turn.
#[btf_map]
static SNAT_CURSORS: Array<u64, 16384> = Array::new();
/// Where a new connection's flows are composed: the stack has no room for two of IPv6's.
#[btf_map]
static DRAFT_V4: PerCpuArray<Draft<AddrV4>, 1> = PerCpuArray::new();
#[btf_map]
static DRAFT_V6: PerCpuArray<Draft<AddrV6>, 1> = PerCpuArray::new();
/// The packet in hand, for the steps of `cold`.
#[btf_map]
static PACKET_V4: PerCpuArray<Packet<AddrV4>, 1> = PerCpuArray::new();
#[btf_map]
static PACKET_V6: PerCpuArray<Packet<AddrV6>, 1> = PerCpuArray::new();
/// By real server.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, 16384> = PerCpuArray::new();
/// By service.
#[btf_map]
static SERVICE_DROPS: PerCpuArray<ServiceDrops, 4096> = PerCpuArray::new();
/// By [`Verdict`].
#[btf_map]
static VERDICTS: PerCpuArray<u64, 32> = PerCpuArray::new();
#[btf_map]
static INTERFACES: Array<Interface, 64> = Array::new();
/// Interface index in the kernel -> index in `INTERFACES`.
#[btf_map]
static INTERFACE_SLOTS: HashMap<u32, u32, 64> = HashMap::new();
/// Egress by index in `INTERFACES`.
#[btf_map]
static TX_PORTS: DevMap<64> = DevMap::new();
/// The same for the program without `frags`: a device map belongs to one kind (kernel/bpf/core.c,
/// `bpf_prog_map_compatible`).
#[btf_map]
static TX_PORTS_LINEAR: DevMap<64> = DevMap::new();
#[btf_map]
static FILTER: Array<Filter, 1> = Array::new();
#[btf_map]
static META: Array<Meta, 1> = Array::new();
/// When the table of established flows was last found full, in ticks; 0: never. IPv4, IPv6.
#[btf_map]
static PRESSURE: Array<u32, 2> = Array::new();
/// Labels, for the control path alone.
#[btf_map]
static SERVICE_NAMES: Array<Name, 4096> = Array::new();
#[btf_map]
static REAL_NAMES: Array<Name, 16384> = Array::new();

/// Set by the loader: the number of buckets in `OPENING_V4` and `OPENING_V6`, a power of two, less one.
#[unsafe(no_mangle)]
static OPENING_MASK: u32 = 32767;

/// Both directions of a connection that is being recorded. This CPU's own while the program runs.
#[repr(C)]
pub struct Draft<A> {
    /// The client's direction.
    pub flow: Flow<A>,
    /// The real server's direction (NAT, SNAT).
    pub reply: Flow<A>,
    /// The key of the real server's direction.
    pub back: FlowKey<A>,
    /// The search for a SNAT port.
    pub ports: PortSearch,
    _pad: u32,
}

/// Where the search for a SNAT port is (`step::record`). Not on the stack: on Linux 6.1, which
/// rounds every frame up to 32 bytes, there is no room.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PortSearch {
    /// The first port of the range.
    pub first: u32,
    /// Ports of the range.
    pub count: u32,
    /// The next one to try, from `first` on.
    pub place: u32,
    /// How many were tried.
    pub turns: u32,
    /// How many will be.
    pub last: u32,
    /// The one that was taken, 0: none.
    pub found: u32,
    /// Half-open connections met.
    pub crowd: u32,
    /// The port of the first of them, which began first, since ports are given out in turn; 0: none.
    pub oldest: u32,
    /// In which turn it was met.
    pub met: u32,
    /// TCP, not UDP.
    pub tcp: u32,
    /// What the rewrite adds to the checksum of a reply to port 0.
    pub base: u32,
}

/// The maps of one address family.
pub trait Tables: Sized {
    /// Its address type.
    type A: Addr + 'static;
    /// Index in `PRESSURE`.
    const PRESSURE: u32;
    fn tcp(key: &FlowKey<Self::A>) -> Option<*mut Flow<Self::A>>;
    fn tcp_insert(key: &FlowKey<Self::A>, flow: &Flow<Self::A>) -> Result<(), i32>;
    fn tcp_remove(key: &FlowKey<Self::A>);
    fn half(key: &FlowKey<Self::A>) -> Option<*mut Flow<Self::A>>;
    fn half_insert(key: &FlowKey<Self::A>, flow: &Flow<Self::A>, flags: u64) -> Result<(), i32>;
    fn half_remove(key: &FlowKey<Self::A>);
    /// The bucket of a hash.
    fn bucket(hash: u32) -> Option<*mut Bucket<Self::A>>;
    fn udp(key: &FlowKey<Self::A>) -> Option<*mut Flow<Self::A>>;
    fn udp_insert(key: &FlowKey<Self::A>, flow: &Flow<Self::A>, flags: u64) -> Result<(), i32>;
    fn udp_remove(key: &FlowKey<Self::A>);
    fn persist(key: &PersistKey<Self::A>) -> Option<*mut Persistence>;
    fn persist_insert(key: &PersistKey<Self::A>, entry: &Persistence);
    fn vip(address: &Self::A) -> Option<*const Vip>;
    fn outbound(source: &Self::A) -> Option<*const Vip>;
    fn unresolved_insert(hop: &Self::A, now: u32);
    fn draft<'a>() -> Option<&'a mut Draft<Self::A>>;
    /// Puts the packet where `packet` finds it.
    fn hand(packet: &Packet<Self::A>);
    fn packet<'a>() -> Option<&'a Packet<Self::A>>;
    fn fragment(key: &FragmentKey<Self::A>) -> Option<*mut Flow<Self::A>>;
    fn fragment_insert(key: &FragmentKey<Self::A>, flow: &Flow<Self::A>);
    fn check(answer: &FlowKey<Self::A>) -> Option<*mut Self::A>;
    fn check_insert(answer: &FlowKey<Self::A>, real: &Self::A);
}

/// Insert, replacing what is there.
pub const ANY: u64 = BPF_ANY as u64;
/// Insert only where there is nothing.
pub const NOEXIST: u64 = BPF_NOEXIST as u64;

macro_rules! tables {
    ($family:ty, $addr:ty, $pressure:literal, $draft:ident, $packet:ident, $tcp:ident, $half:ident, $opening:ident, $udp:ident, $persist:ident, $vips:ident, $frag:ident, $checks:ident, $outbound:ident, $unresolved:ident) => {
        impl Tables for $family {
            type A = $addr;
            const PRESSURE: u32 = $pressure;
            #[inline(always)]
            fn tcp(key: &FlowKey<$addr>) -> Option<*mut Flow<$addr>> {
                $tcp.get_ptr_mut(key)
            }
            #[inline(always)]
            fn tcp_insert(key: &FlowKey<$addr>, flow: &Flow<$addr>) -> Result<(), i32> {
                $tcp.insert(key, flow, ANY)
            }
            #[inline(always)]
            fn tcp_remove(key: &FlowKey<$addr>) {
                let _ = $tcp.remove(key); // already gone is as good
            }
            #[inline(always)]
            fn half(key: &FlowKey<$addr>) -> Option<*mut Flow<$addr>> {
                $half.get_ptr_mut(key)
            }
            #[inline(always)]
            fn half_insert(
                key: &FlowKey<$addr>,
                flow: &Flow<$addr>,
                flags: u64,
            ) -> Result<(), i32> {
                $half.insert(key, flow, flags)
            }
            #[inline(always)]
            fn half_remove(key: &FlowKey<$addr>) {
                let _ = $half.remove(key); // already gone is as good
            }
            #[inline(always)]
            fn bucket(hash: u32) -> Option<*mut Bucket<$addr>> {
                $opening.get_ptr_mut(hash & constant(&OPENING_MASK))
            }
            #[inline(always)]
            fn udp(key: &FlowKey<$addr>) -> Option<*mut Flow<$addr>> {
                $udp.get_ptr_mut(key)
            }
            #[inline(always)]
            fn udp_insert(key: &FlowKey<$addr>, flow: &Flow<$addr>, flags: u64) -> Result<(), i32> {
                $udp.insert(key, flow, flags)
            }
            #[inline(always)]
            fn udp_remove(key: &FlowKey<$addr>) {
                let _ = $udp.remove(key); // already gone is as good
            }
            #[inline(always)]
            fn persist(key: &PersistKey<$addr>) -> Option<*mut Persistence> {
                $persist.get_ptr_mut(key)
            }
            #[inline(always)]
            fn persist_insert(key: &PersistKey<$addr>, entry: &Persistence) {
                let _ = $persist.insert(key, entry, ANY); // an LRU map makes room
            }
            #[inline(always)]
            fn vip(address: &$addr) -> Option<*const Vip> {
                $vips.get_ptr(address)
            }
            #[inline(always)]
            fn outbound(source: &$addr) -> Option<*const Vip> {
                $outbound.get_ptr(source)
            }
            #[inline(always)]
            fn unresolved_insert(hop: &$addr, now: u32) {
                let _ = $unresolved.insert(hop, now, ANY); // an LRU map makes room
            }
            #[inline(always)]
            fn fragment(key: &FragmentKey<$addr>) -> Option<*mut Flow<$addr>> {
                $frag.get_ptr_mut(key)
            }
            #[inline(always)]
            fn fragment_insert(key: &FragmentKey<$addr>, flow: &Flow<$addr>) {
                let _ = $frag.insert(key, flow, ANY); // an LRU map makes room
            }
            #[inline(always)]
            fn check(answer: &FlowKey<$addr>) -> Option<*mut $addr> {
                $checks.get_ptr_mut(answer)
            }
            #[inline(always)]
            fn check_insert(answer: &FlowKey<$addr>, real: &$addr) {
                let _ = $checks.insert(answer, real, ANY); // an LRU map makes room
            }
            #[inline(always)]
            fn hand(packet: &Packet<$addr>) {
                if let Some(place) = $packet.get_ptr_mut(0) {
                    // SAFETY: this CPU's own cell.
                    unsafe { place.write(packet.clone()) };
                }
            }
            #[inline(always)]
            fn packet<'a>() -> Option<&'a Packet<$addr>> {
                // SAFETY: this CPU's own cell, written only between the steps that read it.
                $packet.get_ptr(0).map(|packet| unsafe { &*packet })
            }
            #[inline(always)]
            fn draft<'a>() -> Option<&'a mut Draft<$addr>> {
                // SAFETY: this CPU's own cell; the one step that asks for it holds it alone.
                $draft.get_ptr_mut(0).map(|draft| unsafe { &mut *draft })
            }
        }
    };
}

tables!(
    V4,
    AddrV4,
    0,
    DRAFT_V4,
    PACKET_V4,
    TCP_V4,
    HALF_V4,
    OPENING_V4,
    UDP_V4,
    PERSIST_V4,
    VIPS_V4,
    FRAG_V4,
    CHECKS_V4,
    OUTBOUND_V4,
    UNRESOLVED_V4
);
tables!(
    V6,
    AddrV6,
    1,
    DRAFT_V6,
    PACKET_V6,
    TCP_V6,
    HALF_V6,
    OPENING_V6,
    UDP_V6,
    PERSIST_V6,
    VIPS_V6,
    FRAG_V6,
    CHECKS_V6,
    OUTBOUND_V6,
    UNRESOLVED_V6
);

/// A real server.
#[inline(always)]
pub fn real(index: u32) -> Option<&'static Real> {
    REALS.get(index)
}

/// Its connection counts, for atomic access.
#[inline(always)]
pub fn connections(index: u32) -> Option<*mut Connections> {
    CONNECTIONS.get_ptr_mut(index)
}

/// A service's record, in the bank that is in use.
#[inline(always)]
pub fn service(index: u32) -> Option<&'static Service> {
    let bank = SERVICE_BANKS.get(index)? & 1;
    SERVICES.get(index * 2 + bank)
}

/// A run of ports of a virtual address.
#[inline(always)]
pub fn port_range(index: u32) -> Option<&'static PortRange> {
    PORTS.get(index)
}

/// The VIP that a service's checks go through.
#[inline(always)]
pub fn check_vip(service: u32) -> Option<&'static [Be32; 4]> {
    CHECK_VIPS.get(service)
}

/// A place in a selection table.
#[inline(always)]
pub fn slot(index: u32) -> Option<&'static Slot> {
    SLOTS.get(index)
}

/// A service's cursor.
#[inline(always)]
pub fn cursor(service: u32) -> Option<*mut u64> {
    CURSORS.get_ptr_mut(service)
}

/// Where the search for a SNAT port towards a real server goes on.
#[inline(always)]
pub fn snat_cursor(real: u32) -> Option<*mut u64> {
    SNAT_CURSORS.get_ptr_mut(real)
}

/// An interface.
#[inline(always)]
pub fn interface(index: u32) -> Option<&'static Interface> {
    INTERFACES.get(index)
}

/// The index in `INTERFACES` of the kernel's interface.
#[inline(always)]
pub fn interface_slot(ifindex: u32) -> Option<u32> {
    // SAFETY: the value is copied at once.
    unsafe { INTERFACE_SLOTS.get(ifindex).copied() }
}

/// What the filter says of an address: `FilterBit`s.
#[inline(always)]
pub fn filter<A: Addr>(address: A) -> u8 {
    match FILTER.get_ptr(0) {
        // SAFETY: `filter_index` gives 16 bits, and the array has 65,536 entries. Through a raw
        // pointer, because the panicking bounds check of an index could not be verified.
        Some(filter) => unsafe {
            *(filter.cast::<u8>()).add(filter_index(address.folded()) & (FILTER_SIZE - 1))
        },
        None => 0,
    }
}

/// Notes that the table of established flows is full.
#[inline(always)]
pub fn set_pressure<F: Family>(now: u32) {
    let _ = PRESSURE.set(F::PRESSURE, now | 1, ANY); // index 0 and 1 exist
}

/// Whether it was full a moment ago. The next tick's connections find out anew.
#[inline(always)]
pub fn under_pressure<F: Family>(now: u32) -> bool {
    match PRESSURE.get(F::PRESSURE) {
        Some(&since) => since != 0 && !expired(now, since, 1),
        None => false,
    }
}

/// Counts a packet towards the real server.
#[inline(always)]
pub fn count_in(real: u32, bytes: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(real) {
        // SAFETY: this CPU's own cell, and XDP programs are not preempted by others on it.
        unsafe {
            (*counters).packets_in += 1;
            (*counters).bytes_in += bytes as u64;
        }
    }
}

/// Counts a packet towards a client.
#[inline(always)]
pub fn count_out(real: u32, bytes: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(real) {
        // SAFETY: as in `count_in`.
        unsafe {
            (*counters).packets_out += 1;
            (*counters).bytes_out += bytes as u64;
        }
    }
}

/// Counts a connection begun.
#[inline(always)]
pub fn count_connection(real: u32) {
    if let Some(counters) = COUNTERS.get_ptr_mut(real) {
        // SAFETY: as in `count_in`.
        unsafe { (*counters).connections += 1 };
    }
}

/// Counts a packet that was not transmitted.
#[inline(always)]
pub fn count(verdict: Verdict) {
    if let Some(counter) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: as in `count_in`.
        unsafe { *counter += 1 };
    }
}

/// Counts it at its service as well, and gives the verdict back.
#[inline(always)]
pub fn blame(service: u32, verdict: Verdict) -> Verdict {
    if let Some(drops) = SERVICE_DROPS.get_ptr_mut(service) {
        // SAFETY: as in `count_in`; the verdict's number is below `VERDICTS`.
        unsafe { *(drops.cast::<u64>()).add(verdict as usize & 31) += 1 };
    }
    verdict
}

/// Redirects the frame out of an interface of `TX_PORTS`.
#[inline(always)]
pub fn redirect<const FRAGS: bool>(interface: u32) -> Result<u32, Verdict> {
    let ports = if FRAGS { &TX_PORTS } else { &TX_PORTS_LINEAR };
    // On failure the helper returns the low bits of the flags: an action that is not REDIRECT.
    ports.redirect(interface, xdp_action::XDP_DROP as u64).map_err(|_| Verdict::RedirectFailed)
}

/// What tests add to the clock.
#[inline(always)]
pub fn test_clock_offset() -> u32 {
    META.get(0).map_or(0, |meta| meta.test_clock_offset)
}
