//! IPv4 and IPv6 as types: each step is written once and compiled for both.

use lb_common::{
    packet::headers::{IcmpHdr, IpHdr, Ipv4Hdr, Ipv6Hdr, PROTO_ICMP, PROTO_ICMPV6, TcpHdr},
    packet::icmp::{Message, Quoted, compose_v4, compose_v6, kind},
    packet::reset,
};

use crate::{maps::Tables, step::icmp};

/// An IP version.
pub trait Family: Tables {
    /// Its header.
    type Ip: IpHdr<Addr = Self::A>;
    /// Its header's length without options, in bytes.
    const HEADER: usize = size_of::<Self::Ip>();
    /// Whether the ICMP checksum covers a pseudo header.
    const V6: bool;
    /// The protocol number of its ICMP.
    const ICMP: u8;
    /// Type of its echo reply.
    const ECHO_REPLY: u8;
    /// What says that no one listens on a port.
    const PORT_UNREACHABLE: (u8, u8);
    /// What says that a packet does not fit.
    const TOO_BIG: (u8, u8);
    /// Whether an ICMP message of this type quotes a packet that medlb translates.
    fn is_error(kind: u8) -> bool;
    /// Protocol and header length of a quoted packet, if it has ports.
    fn quoted(ip: &Self::Ip) -> Option<(u8, usize)>;
    /// The headers of an ICMP error about a packet.
    fn compose(ip: &Self::Ip, quoted: &Quoted, message: Message) -> (Self::Ip, IcmpHdr);
    /// The packet that answers a segment with a RST.
    fn reset(ip: &Self::Ip, tcp: &TcpHdr, payload: u32) -> (Self::Ip, TcpHdr);
}

/// IPv4.
pub struct V4;
/// IPv6.
pub struct V6;

impl Family for V4 {
    type Ip = Ipv4Hdr;
    const V6: bool = false;
    const ICMP: u8 = PROTO_ICMP;
    const ECHO_REPLY: u8 = 0;
    const PORT_UNREACHABLE: (u8, u8) = (kind::UNREACHABLE, kind::PORT);
    const TOO_BIG: (u8, u8) = (kind::UNREACHABLE, kind::FRAGMENTATION_NEEDED);

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        icmp::is_v4_error(kind)
    }

    #[inline(always)]
    fn quoted(ip: &Ipv4Hdr) -> Option<(u8, usize)> {
        icmp::quoted_v4(ip)
    }

    #[inline(always)]
    fn compose(ip: &Ipv4Hdr, quoted: &Quoted, message: Message) -> (Ipv4Hdr, IcmpHdr) {
        compose_v4(ip, quoted, message)
    }

    #[inline(always)]
    fn reset(ip: &Ipv4Hdr, tcp: &TcpHdr, payload: u32) -> (Ipv4Hdr, TcpHdr) {
        reset::reset_v4(ip, tcp, payload)
    }
}

impl Family for V6 {
    type Ip = Ipv6Hdr;
    const V6: bool = true;
    const ICMP: u8 = PROTO_ICMPV6;
    const ECHO_REPLY: u8 = 129;
    const PORT_UNREACHABLE: (u8, u8) = (kind::V6_UNREACHABLE, kind::V6_PORT);
    const TOO_BIG: (u8, u8) = (kind::V6_TOO_BIG, 0);

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        icmp::is_v6_error(kind)
    }

    #[inline(always)]
    fn quoted(ip: &Ipv6Hdr) -> Option<(u8, usize)> {
        Some((ip.next_header, size_of::<Ipv6Hdr>()))
    }

    #[inline(always)]
    fn compose(ip: &Ipv6Hdr, quoted: &Quoted, message: Message) -> (Ipv6Hdr, IcmpHdr) {
        compose_v6(ip, quoted, message)
    }

    #[inline(always)]
    fn reset(ip: &Ipv6Hdr, tcp: &TcpHdr, payload: u32) -> (Ipv6Hdr, TcpHdr) {
        reset::reset_v6(ip, tcp, payload)
    }
}
