//! Header views. Fields in network order are [`Be16`]/[`Be32`]; checksums are kept as they lie in
//! memory, since checksum arithmetic works in either order.

use crate::abi::{Addr, AddrV4, AddrV6, Be16, Be32, Mac};

/// EtherType of IPv4.
pub const ETH_IPV4: Be16 = Be16::new(0x0800);
/// EtherType of IPv6.
pub const ETH_IPV6: Be16 = Be16::new(0x86dd);
/// EtherType of an 802.1Q tag.
pub const ETH_VLAN: Be16 = Be16::new(0x8100);
/// EtherType of an 802.1ad service tag.
pub const ETH_QINQ: Be16 = Be16::new(0x88a8);

/// IP protocol number of ICMP.
pub const PROTO_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const PROTO_TCP: u8 = crate::abi::PROTO_TCP;
/// IP protocol number of UDP.
pub const PROTO_UDP: u8 = crate::abi::PROTO_UDP;
/// IP protocol number of ICMPv6.
pub const PROTO_ICMPV6: u8 = 58;

/// TCP flag bits (RFC 9293 §3.1).
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset the connection.
    pub const RST: u8 = 4;
    /// The acknowledgement field is valid.
    pub const ACK: u8 = 16;
}

/// Ethernet II (IEEE 802.3 §3.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthHdr {
    /// Destination MAC address.
    pub dst: Mac,
    /// Source MAC address.
    pub src: Mac,
    /// What follows.
    pub ethertype: Be16,
}

/// The four bytes of a tag behind its EtherType (IEEE 802.1Q §9.3).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// Priority, drop eligibility and VLAN identifier.
    pub tci: Be16,
    /// What follows.
    pub ethertype: Be16,
}

/// IPv4 (RFC 791 §3.1), without options.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Hdr {
    /// Version (high 4 bits) and header length in 32-bit words.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Header and payload, in bytes.
    pub total_length: Be16,
    /// Identification, for fragments.
    pub id: Be16,
    /// Flags (high 3 bits) and fragment offset in 8-byte units.
    pub fragment: Be16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header checksum, in memory order.
    pub check: u16,
    /// Source.
    pub src: AddrV4,
    /// Destination.
    pub dst: AddrV4,
}

/// Bit of [`Ipv4Hdr::fragment`]: do not fragment.
pub const IPV4_DF: u16 = 0x4000;
/// Bit of [`Ipv4Hdr::fragment`]: more fragments follow.
pub const IPV4_MF: u16 = 0x2000;
/// Mask of [`Ipv4Hdr::fragment`]: the offset.
pub const IPV4_OFFSET: u16 = 0x1fff;

/// IPv6 (RFC 8200 §3).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Hdr {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: Be32,
    /// Everything behind this header, in bytes.
    pub payload_length: Be16,
    /// Type of the next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub src: AddrV6,
    /// Destination.
    pub dst: AddrV6,
}

/// The first eight bytes of an IPv6 extension header (RFC 8200 §4); the fragment header (§4.5) in
/// full.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Ext {
    /// Type of the next header.
    pub next_header: u8,
    /// Length in 8-byte units, not counting the first; reserved in the fragment header.
    pub length: u8,
    /// Fragment header: offset in 8-byte units (high 13 bits) and, in the lowest, "more follow".
    pub fragment: Be16,
    /// Fragment header: identification.
    pub id: Be32,
}

/// Numbers of IPv6 extension headers.
pub mod ipv6_ext {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
}

/// TCP (RFC 9293 §3.1), without options.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHdr {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// Sequence number.
    pub seq: Be32,
    /// Acknowledgement number.
    pub ack: Be32,
    /// Header length in 32-bit words (high 4 bits).
    pub offset: u8,
    /// [`tcp_flags`].
    pub flags: u8,
    /// Receive window.
    pub window: Be16,
    /// Checksum, in memory order.
    pub check: u16,
    /// Urgent pointer.
    pub urgent: Be16,
}

/// UDP (RFC 768).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpHdr {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// Header and payload, in bytes.
    pub length: Be16,
    /// Checksum in memory order, 0: none.
    pub check: u16,
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443 §2.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpHdr {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum, in memory order.
    pub check: u16,
    /// Depends on the type: identifier and sequence, MTU, …
    pub rest: Be32,
}

/// What the rewrites need of an IP header of either version.
pub trait IpHdr: Copy {
    /// Its addresses.
    type Addr: Addr;
    /// Source address.
    fn src(&self) -> Self::Addr;
    /// Destination address.
    fn dst(&self) -> Self::Addr;
    /// Remaining hops.
    fn hops(&self) -> u8;
    /// Length of the whole packet in bytes, by its own account.
    fn length(&self) -> u32;
    /// Sets the addresses, takes one hop, and mends the header checksum by `delta`, which accounts
    /// for both ([`super::rewrite::Deltas::between`]).
    fn translate(&mut self, src: &Self::Addr, dst: &Self::Addr, delta: u16);
    /// Sets the addresses of a quoted header, which takes no hop. `delta` is what they change; what
    /// the header's own checksum does not take up of it is given back.
    fn readdress(&mut self, src: &Self::Addr, dst: &Self::Addr, delta: u16) -> u16;
}

impl IpHdr for Ipv4Hdr {
    type Addr = AddrV4;

    #[inline(always)]
    fn src(&self) -> AddrV4 {
        self.src
    }

    #[inline(always)]
    fn dst(&self) -> AddrV4 {
        self.dst
    }

    #[inline(always)]
    fn hops(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.total_length.get() as u32
    }

    #[inline(always)]
    fn translate(&mut self, src: &AddrV4, dst: &AddrV4, delta: u16) {
        self.src.put(src);
        self.dst.put(dst);
        self.ttl -= 1;
        self.check = super::checksum::update(self.check, delta);
    }

    #[inline(always)]
    fn readdress(&mut self, src: &AddrV4, dst: &AddrV4, delta: u16) -> u16 {
        self.src.put(src);
        self.dst.put(dst);
        self.check = super::checksum::update(self.check, delta);
        0
    }
}

impl IpHdr for Ipv6Hdr {
    type Addr = AddrV6;

    #[inline(always)]
    fn src(&self) -> AddrV6 {
        self.src
    }

    #[inline(always)]
    fn dst(&self) -> AddrV6 {
        self.dst
    }

    #[inline(always)]
    fn hops(&self) -> u8 {
        self.hop_limit
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.payload_length.get() as u32 + 40
    }

    #[inline(always)]
    fn translate(&mut self, src: &AddrV6, dst: &AddrV6, _delta: u16) {
        self.src.put(src);
        self.dst.put(dst);
        self.hop_limit -= 1;
    }

    #[inline(always)]
    fn readdress(&mut self, src: &AddrV6, dst: &AddrV6, delta: u16) -> u16 {
        self.src.put(src);
        self.dst.put(dst);
        delta
    }
}

const _: () = {
    assert!(size_of::<EthHdr>() == 14);
    assert!(size_of::<VlanTag>() == 4);
    assert!(size_of::<Ipv4Hdr>() == 20);
    assert!(size_of::<Ipv6Hdr>() == 40);
    assert!(size_of::<TcpHdr>() == 20);
    assert!(size_of::<UdpHdr>() == 8);
    assert!(size_of::<IcmpHdr>() == 8);
};
