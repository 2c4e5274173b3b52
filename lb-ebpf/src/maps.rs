//! Every map of the data plane, and its typed accessor: the one place on this side where maps are
//! touched.

use aya_ebpf::{
    btf_maps::{Array, DevMap, HashMap, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::abi::*;

// Sizes are defaults; the loader sets those of the flow tables from the configuration.

/// Established TCP flows.
#[btf_map]
pub static TCP_V4: HashMap<FlowKey<AddrV4>, Flow<AddrV4>, 262144> = HashMap::new();
#[btf_map]
pub static TCP_V6: HashMap<FlowKey<AddrV6>, Flow<AddrV6>, 262144> = HashMap::new();
/// Half-open TCP flows: all that a flood of SYNs can fill.
#[btf_map]
pub static HALF_V4: LruHashMap<FlowKey<AddrV4>, Flow<AddrV4>, 65536> = LruHashMap::new();
#[btf_map]
pub static HALF_V6: LruHashMap<FlowKey<AddrV6>, Flow<AddrV6>, 65536> = LruHashMap::new();
/// UDP flows.
#[btf_map]
pub static UDP_V4: LruHashMap<FlowKey<AddrV4>, Flow<AddrV4>, 65536> = LruHashMap::new();
#[btf_map]
pub static UDP_V6: LruHashMap<FlowKey<AddrV6>, Flow<AddrV6>, 65536> = LruHashMap::new();
/// Persistence entries.
#[btf_map]
pub static PERSIST_V4: LruHashMap<PersistKey<AddrV4>, Persistence, 65536> = LruHashMap::new();
#[btf_map]
pub static PERSIST_V6: LruHashMap<PersistKey<AddrV6>, Persistence, 65536> = LruHashMap::new();
/// Virtual addresses.
#[btf_map]
pub static VIPS_V4: HashMap<AddrV4, Vip, 4096> = HashMap::new();
#[btf_map]
pub static VIPS_V6: HashMap<AddrV6, Vip, 4096> = HashMap::new();
#[btf_map]
pub static PORTS: Array<PortRange, 65536> = Array::new();
/// Two banks for each service; `SERVICE_BANKS` says which is in use.
#[btf_map]
pub static SERVICES: Array<Service, 8192> = Array::new();
#[btf_map]
pub static SERVICE_BANKS: Array<u32, 4096> = Array::new();
#[btf_map]
pub static SLOTS: Array<Slot, 1048576> = Array::new();
#[btf_map]
pub static REALS: Array<Real, 16384> = Array::new();
#[btf_map]
pub static CONNECTIONS: Array<Connections, 16384> = Array::new();
/// By service.
#[btf_map]
pub static CURSORS: Array<u32, 4096> = Array::new();
#[btf_map]
pub static SNAT_CURSORS: PerCpuArray<u32, 1> = PerCpuArray::new();
/// By real server.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, 16384> = PerCpuArray::new();
/// By service.
#[btf_map]
pub static SERVICE_DROPS: PerCpuArray<ServiceDrops, 4096> = PerCpuArray::new();
/// By [`Verdict`].
#[btf_map]
pub static VERDICTS: PerCpuArray<u64, 32> = PerCpuArray::new();
#[btf_map]
pub static INTERFACES: Array<Interface, 64> = Array::new();
/// Interface index in the kernel -> index in `INTERFACES`.
#[btf_map]
pub static INTERFACE_SLOTS: HashMap<u32, u32, 64> = HashMap::new();
/// Egress by index in `INTERFACES`.
#[btf_map]
pub static TX_PORTS: DevMap<64> = DevMap::new();
#[btf_map]
pub static FILTER: Array<Filter, 1> = Array::new();
#[btf_map]
pub static META: Array<Meta, 1> = Array::new();
/// Labels, for the control path alone.
#[btf_map]
pub static SERVICE_NAMES: Array<Name, 4096> = Array::new();
#[btf_map]
pub static REAL_NAMES: Array<Name, 16384> = Array::new();
