//! A TCP RST made from the segment that it answers (RFC 9293 §3.10.7.1).

use super::checksum::{fold, sum};
use super::headers::{Ipv4Hdr, Ipv6Hdr, TcpHdr, tcp_flags};
use crate::abi::{Be16, Be32, PROTO_TCP};

/// The RST that answers a segment of `payload` bytes: from its destination to its source, with
/// the sequence number that its sender expects. The checksum is left 0.
#[inline(always)]
pub fn reset_for(segment: &TcpHdr, payload: u32) -> TcpHdr {
    let has_ack = segment.flags & tcp_flags::ACK != 0;
    let length = payload
        + (segment.flags & tcp_flags::SYN != 0) as u32
        + (segment.flags & tcp_flags::FIN != 0) as u32;
    let (seq, ack, flags) = if has_ack {
        (segment.ack, Be32::new(0), tcp_flags::RST)
    } else {
        let ack = Be32::new(segment.seq.get().wrapping_add(length));
        (Be32::new(0), ack, tcp_flags::RST | tcp_flags::ACK)
    };
    TcpHdr {
        sport: segment.dport,
        dport: segment.sport,
        seq,
        ack,
        offset: 5 << 4,
        flags,
        window: Be16::new(0),
        check: 0,
        urgent: Be16::new(0),
    }
}

/// Sum of the 16-bit words of a TCP header.
#[inline(always)]
fn tcp_sum(tcp: &TcpHdr) -> u64 {
    tcp.sport.raw() as u64
        + tcp.dport.raw() as u64
        + tcp.seq.raw() as u64
        + tcp.ack.raw() as u64
        + u16::from_ne_bytes([tcp.offset, tcp.flags]) as u64
        + tcp.window.raw() as u64
        + tcp.urgent.raw() as u64
}

/// Length of an IPv4 or IPv6 packet that is a bare TCP header, behind its IP header.
const TCP_LENGTH: u16 = size_of::<TcpHdr>() as u16;

/// The IPv4 packet that answers `ip` and `tcp` with a RST.
#[inline(always)]
pub fn reset_v4(ip: &Ipv4Hdr, tcp: &TcpHdr, payload: u32) -> (Ipv4Hdr, TcpHdr) {
    let mut reset = reset_for(tcp, payload);
    let pseudo = ip.src.0.raw() as u64
        + ip.dst.0.raw() as u64
        + Be16::new(PROTO_TCP as u16).raw() as u64
        + Be16::new(TCP_LENGTH).raw() as u64;
    reset.check = !fold(pseudo + tcp_sum(&reset));
    let header = ipv4_answer(ip, TCP_LENGTH, PROTO_TCP);
    (header, reset)
}

/// An IPv4 header, without options, from `ip`'s destination to its source, for `payload` bytes.
#[inline(always)]
pub fn ipv4_answer(ip: &Ipv4Hdr, payload: u16, protocol: u8) -> Ipv4Hdr {
    let mut header = Ipv4Hdr {
        version_ihl: 0x45,
        tos: 0,
        total_length: Be16::new(20 + payload),
        id: Be16::new(0),
        fragment: Be16::new(super::headers::IPV4_DF),
        ttl: 64,
        protocol,
        check: 0,
        src: ip.dst,
        dst: ip.src,
    };
    header.check = !fold(ipv4_sum(&header));
    header
}

/// Sum of the 16-bit words of an IPv4 header without options and without its checksum.
#[inline(always)]
pub fn ipv4_sum(ip: &Ipv4Hdr) -> u64 {
    u16::from_ne_bytes([ip.version_ihl, ip.tos]) as u64
        + ip.total_length.raw() as u64
        + ip.id.raw() as u64
        + ip.fragment.raw() as u64
        + u16::from_ne_bytes([ip.ttl, ip.protocol]) as u64
        + ip.src.0.raw() as u64
        + ip.dst.0.raw() as u64
}

/// The IPv6 packet that answers `ip` and `tcp` with a RST.
#[inline(always)]
pub fn reset_v6(ip: &Ipv6Hdr, tcp: &TcpHdr, payload: u32) -> (Ipv6Hdr, TcpHdr) {
    let mut reset = reset_for(tcp, payload);
    let header = ipv6_answer(ip, TCP_LENGTH, PROTO_TCP);
    let pseudo = ipv6_pseudo_sum(&header, TCP_LENGTH, PROTO_TCP);
    reset.check = !fold(pseudo + tcp_sum(&reset));
    (header, reset)
}

/// An IPv6 header from `ip`'s destination to its source, for `payload` bytes.
#[inline(always)]
pub fn ipv6_answer(ip: &Ipv6Hdr, payload: u16, protocol: u8) -> Ipv6Hdr {
    Ipv6Hdr {
        version_class_flow: Be32::new(6 << 28),
        payload_length: Be16::new(payload),
        next_header: protocol,
        hop_limit: 64,
        src: ip.dst,
        dst: ip.src,
    }
}

/// Sum of the 16-bit words of the IPv6 pseudo header (RFC 8200 §8.1).
#[inline(always)]
pub fn ipv6_pseudo_sum(ip: &Ipv6Hdr, payload: u16, protocol: u8) -> u64 {
    let mut total = Be16::new(payload).raw() as u64 + Be16::new(protocol as u16).raw() as u64;
    let mut i = 0;
    while i < 4 {
        total += ip.src.0[i].raw() as u64 + ip.dst.0[i].raw() as u64;
        i += 1;
    }
    total
}

/// The checksum of a TCP or UDP segment over IPv4, by full recomputation: the oracle of tests.
pub fn full_l4_check_v4(ip: &Ipv4Hdr, segment: &[u8]) -> u16 {
    let pseudo = ip.src.0.raw() as u64
        + ip.dst.0.raw() as u64
        + Be16::new(ip.protocol as u16).raw() as u64
        + Be16::new(segment.len() as u16).raw() as u64;
    !fold(pseudo + sum(segment))
}
