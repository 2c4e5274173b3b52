//! Flow keys and values: what is known of one direction of one connection.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::{Be16, Be32, Mac, Tags};
use crate::packet::checksum::delta32;

/// An IPv4 address in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct AddrV4(pub Be32);

/// An IPv6 address in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct AddrV6(pub [Be32; 4]);

/// What the data path needs of an address of either family.
pub trait Addr: Copy + Default + PartialEq + Eq {
    /// The same shape as in [`super::Real::address`]: IPv4 in the first word, the rest zero.
    fn to_words(self) -> [Be32; 4];
    /// The inverse of [`Addr::to_words`].
    fn from_words(words: &[Be32; 4]) -> Self;
    /// The address with the bits outside `mask` cleared.
    fn masked(self, mask: &[Be32; 4]) -> Self;
    /// What replacing this address by `new` changes in a checksum, not folded
    /// (`packet::checksum::delta32`).
    fn delta(&self, new: &Self) -> u64;
    /// All bits folded into one word by exclusive or: input for hashes, never an identity.
    fn folded(self) -> u32;
    /// Whether it is the other one, word by word: `==` on an array becomes a call of `bcmp` on BPF
    /// (LLVM 22), a loop over bytes there.
    fn same(&self, other: &Self) -> bool;
    /// Copies another address here, word by word: a plain assignment through references that might
    /// overlap becomes a call of `memmove` on BPF (LLVM 22), which is a loop over bytes there, for
    /// the processor and for the verifier.
    fn put(&mut self, from: &Self);
}

impl Addr for AddrV4 {
    #[inline(always)]
    fn to_words(self) -> [Be32; 4] {
        [self.0, Be32::from_raw(0), Be32::from_raw(0), Be32::from_raw(0)]
    }

    #[inline(always)]
    fn from_words(words: &[Be32; 4]) -> Self {
        Self(words[0])
    }

    #[inline(always)]
    fn masked(self, mask: &[Be32; 4]) -> Self {
        Self(Be32::from_raw(self.0.raw() & mask[0].raw()))
    }

    #[inline(always)]
    fn delta(&self, new: &Self) -> u64 {
        delta32(self.0.raw(), new.0.raw())
    }

    #[inline(always)]
    fn folded(self) -> u32 {
        self.0.raw()
    }

    #[inline(always)]
    fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    #[inline(always)]
    fn put(&mut self, from: &Self) {
        self.0 = from.0;
    }
}

impl Addr for AddrV6 {
    #[inline(always)]
    fn to_words(self) -> [Be32; 4] {
        self.0
    }

    #[inline(always)]
    fn from_words(words: &[Be32; 4]) -> Self {
        Self(*words)
    }

    #[inline(always)]
    fn masked(self, mask: &[Be32; 4]) -> Self {
        let a = &self.0;
        Self([
            Be32::from_raw(a[0].raw() & mask[0].raw()),
            Be32::from_raw(a[1].raw() & mask[1].raw()),
            Be32::from_raw(a[2].raw() & mask[2].raw()),
            Be32::from_raw(a[3].raw() & mask[3].raw()),
        ])
    }

    #[inline(always)]
    fn delta(&self, new: &Self) -> u64 {
        delta32(self.0[0].raw(), new.0[0].raw())
            + delta32(self.0[1].raw(), new.0[1].raw())
            + delta32(self.0[2].raw(), new.0[2].raw())
            + delta32(self.0[3].raw(), new.0[3].raw())
    }

    #[inline(always)]
    fn folded(self) -> u32 {
        self.0[0].raw() ^ self.0[1].raw() ^ self.0[2].raw() ^ self.0[3].raw()
    }

    #[inline(always)]
    fn same(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
    }

    #[inline(always)]
    fn put(&mut self, from: &Self) {
        let (a, b, c, d) = (from.0[0], from.0[1], from.0[2], from.0[3]);
        self.0[0] = a;
        self.0[1] = b;
        self.0[2] = c;
        self.0[3] = d;
    }
}

impl From<Ipv4Addr> for AddrV4 {
    fn from(a: Ipv4Addr) -> Self {
        Self(Be32::from_octets(a.octets()))
    }
}

impl From<AddrV4> for Ipv4Addr {
    fn from(a: AddrV4) -> Self {
        Self::from(a.0.octets())
    }
}

impl From<Ipv6Addr> for AddrV6 {
    fn from(a: Ipv6Addr) -> Self {
        let o = a.octets();
        let word = |i: usize| Be32::from_octets([o[i], o[i + 1], o[i + 2], o[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<AddrV6> for Ipv6Addr {
    fn from(a: AddrV6) -> Self {
        let mut o = [0; 16];
        for (chunk, word) in o.chunks_exact_mut(4).zip(a.0) {
            chunk.copy_from_slice(&word.octets());
        }
        Self::from(o)
    }
}

impl core::fmt::Debug for AddrV4 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&Ipv4Addr::from(*self), f)
    }
}

impl core::fmt::Debug for AddrV6 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&Ipv6Addr::from(*self), f)
    }
}

/// One direction of a connection, as its packets arrive at medlb. TCP and UDP have maps of their
/// own, so the protocol is not part of the key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    /// Source address of the packet.
    pub src: A,
    /// Destination address of the packet.
    pub dst: A,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
}

impl<A: Addr> FlowKey<A> {
    /// The key of the packets that answer this one's.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        let mut key = Self { sport: self.dport, dport: self.sport, ..Self::default() };
        key.src.put(&self.dst);
        key.dst.put(&self.src);
        key
    }
}

/// One fragmented packet, in `FRAG_V4`/`FRAG_V6`; the value is the [`Flow`] that its first fragment
/// belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Identification, 16 bits in IPv4, as it lies in memory.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// The neighbour that a client's packets came from, to which its replies go ("auto last hop").
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// Index in `INTERFACES` and `TX_PORTS`.
    pub interface: u8,
    /// VLAN tags.
    pub tags: Tags,
    /// MAC address.
    pub mac: Mac,
}

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// Addresses or ports are rewritten (NAT, SNAT); without it the flow is DR.
    pub const TRANSLATE: u8 = 1;
    /// Packets of this key come from the real server.
    pub const REPLY: u8 = 2;
    /// The flow was opened by a real server through outbound SNAT: the "client" is that server, and
    /// both directions leave by their [`super::Hop`].
    pub const OUTBOUND: u8 = 4;
    /// The flow is counted in `CONNECTIONS[real].active` (client's direction only).
    pub const COUNTED: u8 = 8;
}

/// What is done with the packets of one [`FlowKey`]. NAT and SNAT connections have two of these,
/// one for each direction; each holds the other's key, reversed, in [`Flow::to`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow<A> {
    /// Index of the real server in `REALS`.
    pub real: u32,
    /// When a packet was last seen, in ticks.
    pub last_seen: u32,
    /// When the flow was made, in ticks.
    pub created: u32,
    /// `policy::tcp::State` as a number; UDP flows stay 0.
    pub state: u8,
    /// [`flow_flags`].
    pub flags: u8,
    /// Where the client's packets come from. The client's direction uses it to notice a change,
    /// the reply direction to send. In the opening direction of an outbound flow, where they go.
    pub hop: Hop,
    /// The packet's addresses and ports after the rewrite ([`flow_flags::TRANSLATE`]).
    pub to: FlowKey<A>,
    /// What the rewrite adds to the IPv4 header checksum (RFC 1624), in memory order.
    pub ip_delta: u16,
    /// What the rewrite adds to the TCP or UDP checksum, in memory order.
    pub l4_delta: u16,
}
