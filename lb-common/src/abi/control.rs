//! What the control path tells the data path: services, real servers, where to send.

use super::{Be16, Be32, Mac};

/// IP protocol number of TCP.
pub const PROTO_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTO_UDP: u8 = 17;

/// How many interfaces one data plane can be attached to.
pub const MAX_INTERFACES: u32 = 64;

/// Forwarding methods, in [`Service::mode`] and [`Real::mode`].
pub mod mode {
    /// Direct routing: only MAC addresses change.
    pub const DR: u8 = 0;
    /// The destination becomes the real server's.
    pub const NAT: u8 = 1;
    /// As NAT, and the source becomes medlb's.
    pub const SNAT: u8 = 2;
    /// Outbound SNAT: the real server opens the connection, and its source becomes medlb's. The
    /// record in `REALS` stands for one source address, that in `SERVICES` for all that leave with
    /// one address.
    pub const OUTBOUND: u8 = 3;
}

/// Bits of [`Real::flags`].
pub mod real_flags {
    /// New connections may go here. Clearing it takes the server out in the same instant, before
    /// the selection table is built anew.
    pub const ACCEPT: u32 = 1;
    /// New connections of clients with a persistence entry may go here even without `ACCEPT`.
    pub const ACCEPT_PERSISTENT: u32 = 2;
    /// Packets of existing flows are answered with a RST instead of being forwarded.
    pub const RESET: u32 = 4;
    /// `dst_mac` is known.
    pub const NEIGHBOUR: u32 = 8;
}

/// One real server of one virtual service, in `REALS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Real {
    /// MAC address of the next hop towards the server. With `src_mac` behind it this is the start
    /// of the Ethernet header.
    pub dst_mac: Mac,
    /// MAC address of the egress interface.
    pub src_mac: Mac,
    /// Egress interface, as an index in `TX_PORTS` and `INTERFACES`.
    pub interface: u16,
    /// VLAN identifier (host order) of the tag that packets towards the server get, 0: none.
    pub vlan: u16,
    /// Egress interface's index in the kernel; packets that came in by it are reflected.
    pub ifindex: u32,
    /// [`real_flags`].
    pub flags: u32,
    /// The service's index.
    pub service: u32,
    /// Port that the server listens on (NAT, SNAT); 0: the one that the client asked for.
    pub port: Be16,
    /// [`mode`].
    pub mode: u8,
    #[doc(hidden)]
    pub _pad: u8,
    /// Address, IPv4 in the first word.
    pub address: [Be32; 4],
    /// Connections at which the server stops taking new ones; 0: no limit.
    pub maximum_connections: u32,
    /// Connections at which it takes new ones again.
    pub minimum_connections: u32,
    /// Largest IP packet that fits the egress interface, in bytes; 0: not checked. NAT and SNAT
    /// answer larger ones with "fragmentation needed" or "packet too big", as a router does.
    pub mtu: u32,
    #[doc(hidden)]
    pub _reserved: u32,
}

/// How a service's slots are read, in [`Service::select`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Select;

impl Select {
    /// The slot with the fewest connections for its weight (wlc; lc has all weights 1).
    pub const LEAST: u8 = 0;
    /// The slots in turn (rr; wrr has a server in several slots).
    pub const CURSOR: u8 = 1;
    /// The slot that the client's address points at (sh, maglev).
    pub const HASH: u8 = 2;
    /// The first slot that can take the connection (failover mode).
    pub const FIRST: u8 = 3;
}

/// Bits of [`Service::flags`].
pub mod service_flags {
    /// The record is in use.
    pub const ENABLED: u32 = 1;
    /// Source-address persistence is on.
    pub const PERSISTENT: u32 = 2;
}

/// One virtual service, in `SERVICES` at twice its index plus its bank (`SERVICE_BANKS`).
/// Userspace fills the bank that is not in use and then switches one byte.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// [`service_flags`].
    pub flags: u32,
    /// [`mode`].
    pub mode: u8,
    /// One of [`Select`]'s constants.
    pub select: u8,
    /// Length of the persistence prefix in bits, for display.
    pub persist_prefix: u8,
    #[doc(hidden)]
    pub _pad: u8,
    /// First slot in `SLOTS`.
    pub slots_first: u32,
    /// How many slots; 0: no usable server.
    pub slots_count: u32,
    /// Real server that takes connections when no other can; [`super::NO_REAL`]: none.
    pub fallback: u32,
    /// Idle time after which an established TCP flow expires, in ticks.
    pub idle: u32,
    /// The same for a half-open one.
    pub half_open: u32,
    /// The same after FIN or RST.
    pub closing: u32,
    /// The same for UDP flows.
    pub udp_idle: u32,
    /// How long a persistence entry lasts after its last new connection, in ticks.
    pub persist: u32,
    /// First SNAT port, host order.
    pub snat_first: u16,
    /// How many SNAT ports there are from there on.
    pub snat_count: u16,
    /// Mask of the persistence prefix.
    pub persist_mask: [Be32; 4],
    /// SNAT source address, IPv4 in the first word.
    pub source: [Be32; 4],
    #[doc(hidden)]
    pub _reserved: [u32; 5],
}

/// One place in a service's selection table, in `SLOTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Index in `REALS`.
    pub real: u32,
    /// Weight for [`Select::LEAST`]; never 0.
    pub weight: u32,
}

/// What ports a virtual address serves, in `VIPS_V4`/`VIPS_V6` by address, or to what ports a real
/// server's own connections are translated, in `OUTBOUND_V4`/`OUTBOUND_V6` by its address: a sorted
/// run of `PORTS`. One update of this value switches all ports of an address at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vip {
    /// First entry in `PORTS`.
    pub first: u32,
    /// How many entries.
    pub count: u32,
}

/// Ports of one protocol that belong to one service, in `PORTS`. Runs are sorted and disjoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    /// Protocol in bits 16 to 23, first port in the low 16.
    pub low: u32,
    /// Protocol in bits 16 to 23, last port in the low 16.
    pub high: u32,
    /// The service's index; in a run of `OUTBOUND_V4`/`OUTBOUND_V6`, the real server's.
    pub service: u32,
    #[doc(hidden)]
    pub _pad: u32,
}

impl PortRange {
    /// The form in which ports are compared.
    #[inline(always)]
    pub const fn composite(protocol: u8, port: u16) -> u32 {
        (protocol as u32) << 16 | port as u32
    }
}

/// Set in [`Connections::overloaded`] between the maximum and the minimum.
pub const CONNECTIONS_OVERLOADED: u32 = 1;

/// Live connection counts of a real server, in `CONNECTIONS`. Written by the data path with atomic
/// additions and by the sweeper's recount; never by a reload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Established TCP flows, and live UDP flows. 64 bits, because BPF has no other atomics in
    /// Rust.
    pub active: u64,
    /// Half-open TCP flows.
    pub pending: u64,
    /// [`CONNECTIONS_OVERLOADED`].
    pub overloaded: u32,
    #[doc(hidden)]
    pub _pad: u32,
}

/// An interface that medlb is attached to or sends by, in `INTERFACES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's index; 0: unused.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: Mac,
    #[doc(hidden)]
    pub _pad: u16,
    /// Largest IP packet that may leave by it, in bytes.
    pub mtu: u32,
}

/// Key of a persistence entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PersistKey<A> {
    /// The service's index.
    pub service: u32,
    /// The client's address, masked.
    pub client: A,
}

/// Where a client's new connections go.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persistence {
    /// Index in `REALS`.
    pub real: u32,
    /// When the client last began a connection, in ticks.
    pub renewed: u32,
}

/// A label in `SERVICE_NAMES` and `REAL_NAMES`: how a daemon that starts anew recognises what it
/// finds. The data path never reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// UTF-8, padded with zeros.
    pub bytes: [u8; 128],
}

/// How many buckets [`Filter`] has.
pub const FILTER_SIZE: usize = 65536;

/// One byte of [`FilterBit`]s for each bucket of addresses: lets a packet that cannot be ours pass
/// after two loads. False positives cost time, never correctness.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// Indexed by [`filter_index`].
    pub buckets: [u8; FILTER_SIZE],
}

/// Bits of a [`Filter`] bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterBit;

impl FilterBit {
    /// Some address of the bucket is a virtual service's or a SNAT source address.
    pub const VIP: u8 = 1;
    /// Some address of the bucket is a NAT or SNAT real server's, or an outbound SNAT source.
    pub const REAL: u8 = 2;
}

/// The bucket of an address, from [`super::Addr::folded`].
#[inline(always)]
pub const fn filter_index(folded: u32) -> usize {
    (folded.wrapping_mul(0x9E37_79B1) >> 16) as usize
}
