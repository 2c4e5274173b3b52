//! Map keys and values, shared by the XDP program and userspace.
//!
//! Every type is `#[repr(C)]`, has no hidden padding and no invalid bit pattern, so that it may be
//! read from a map whatever bytes are in it. Addresses and ports that are compared with packets are
//! kept in network order ([`Be16`], [`Be32`]); counts, indices and times are in host order.
//! A change of any layout here is a change of [`ABI_VERSION`].

mod be;
mod check;
mod control;
mod counters;
mod flow;
mod mac;
mod opening;
mod tags;
mod verdict;

pub use be::{Be16, Be32};
pub use check::{CHECK_MARK, CHECK_MARK_MASK, check_mark};
pub use control::{
    CONNECTIONS_OVERLOADED, Connections, FILTER_SIZE, Filter, FilterBit, Interface, MAX_INTERFACES,
    Name, PROTO_TCP, PROTO_UDP, PersistKey, Persistence, PortRange, Real, Select, Service, Slot,
    Vip, filter_index, mode, real_flags, service_flags,
};
pub use counters::{Counters, ServiceDrops};
pub use flow::{Addr, AddrV4, AddrV6, Flow, FlowKey, FragmentKey, Hop, flow_flags};
pub use mac::Mac;
pub use opening::{Bucket, Opening, PER_BUCKET, PLACES};
pub use tags::Tags;
pub use verdict::{Action, VERDICTS, Verdict};

/// Version of every layout in this module. Stored in the `META` map when the data plane is loaded;
/// a daemon that finds another version refuses to adopt the pinned maps.
pub const ABI_VERSION: u32 = 3;

/// The index that stands for "no real server".
pub const NO_REAL: u32 = u32::MAX;

/// Facts about a loaded data plane, in `META[0]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// [`ABI_VERSION`] of the loader that created the maps.
    pub abi_version: u32,
    /// Jiffies are shifted right by this many bits to give ticks (see `policy::clock`).
    pub tick_shift: u32,
    /// Timer interrupts a second, as the loader found them.
    pub hz: u32,
    /// Added to the clock by tests only, in ticks. Read by the program only when it was loaded
    /// with `TEST_CLOCK` set.
    pub test_clock_offset: u32,
}

macro_rules! pod {
    ($($t:ty = $size:literal),* $(,)?) => {
        $(
            const _: () = assert!(size_of::<$t>() == $size);
            // SAFETY: the type is repr(C) over integers, without padding (the size is asserted
            // beside each type's fields), so every byte pattern is a value of it.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $t {}
        )*
    };
}

pod! {
    Meta = 16,
    FlowKey<AddrV4> = 12,
    FlowKey<AddrV6> = 36,
    Flow<AddrV4> = 40,
    Flow<AddrV6> = 64,
    Opening<AddrV4> = 24,
    Opening<AddrV6> = 48,
    Bucket<AddrV4> = 128,
    Bucket<AddrV6> = 248,
    FragmentKey<AddrV4> = 16,
    FragmentKey<AddrV6> = 40,
    Real = 64,
    Service = 96,
    Slot = 8,
    Vip = 8,
    PortRange = 16,
    Connections = 24,
    Interface = 16,
    PersistKey<AddrV4> = 8,
    PersistKey<AddrV6> = 20,
    Persistence = 8,
    Name = 128,
    Counters = 40,
    ServiceDrops = 256,
    AddrV4 = 4,
    AddrV6 = 16,
    Filter = 65536,
}
