//! ICMP (RFC 792) and ICMPv6 (RFC 4443) errors: those that pass by are translated together with
//! the packet that they quote (RFC 5508 §4), those that medlb owes are composed.

use super::checksum::{delta16, fold, update, update_udp};
use super::headers::{IcmpHdr, IpHdr, Ipv4Hdr, Ipv6Hdr, PROTO_ICMP, PROTO_ICMPV6, UdpHdr};
use super::reset::{ipv4_answer, ipv4_sum, ipv6_answer, ipv6_pseudo_sum};
use crate::abi::{Addr, Be16, Be32, FlowKey};

/// Types and codes.
pub mod kind {
    /// ICMP: destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Code of it: port unreachable.
    pub const PORT: u8 = 3;
    /// Code of it: fragmentation needed and DF set (RFC 1191).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// ICMP: time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// ICMP: parameter problem.
    pub const PARAMETER: u8 = 12;
    /// ICMPv6: destination unreachable.
    pub const V6_UNREACHABLE: u8 = 1;
    /// Code of it: port unreachable.
    pub const V6_PORT: u8 = 4;
    /// ICMPv6: packet too big.
    pub const V6_TOO_BIG: u8 = 2;
    /// ICMPv6: the last type that is an error with a quotation that medlb translates.
    pub const V6_LAST_ERROR: u8 = 4;
}

/// Rewrites the quoted packet's addresses and ports to `to`, and gives what that changes in the
/// ICMP checksum.
///
/// `udp` says that the ports are a UDP header's, whose checksum is quoted too.
#[inline(always)]
pub fn translate_quote<I: IpHdr>(
    ip: &mut I,
    ports: &mut UdpHdr,
    udp: bool,
    to: &FlowKey<I::Addr>,
) -> u16 {
    let moved = ip.src().delta(&to.src) + ip.dst().delta(&to.dst);
    // In IPv4 the header checksum takes up what the addresses change; in IPv6 nothing does.
    let header = ip.readdress(&to.src, &to.dst, fold(moved));
    let ports_moved =
        delta16(ports.sport.raw(), to.sport.raw()) + delta16(ports.dport.raw(), to.dport.raw());
    let mut total = header as u64 + ports_moved;
    ports.sport = to.sport;
    ports.dport = to.dport;
    if udp {
        let check = update_udp(ports.check, fold(moved + ports_moved));
        total += delta16(ports.check, check);
        ports.check = check;
    }
    fold(total)
}

/// Rewrites the error's own addresses, takes one hop, and mends all checksums. `quote` is what
/// [`translate_quote`] gave; `v6` says that the checksum covers a pseudo header.
#[inline(always)]
pub fn translate_error<I: IpHdr>(
    ip: &mut I,
    icmp: &mut IcmpHdr,
    src: I::Addr,
    dst: I::Addr,
    quote: u16,
    v6: bool,
) {
    let moved = ip.src().delta(&src) + ip.dst().delta(&dst);
    let pseudo = if v6 { moved } else { 0 };
    icmp.check = update(icmp.check, fold(pseudo + quote as u64));
    let hop = !Be16::new(0x0100).raw() as u64;
    ip.translate(&src, &dst, fold(moved + hop));
}

/// What an error says: type, code, and the four bytes behind the checksum (an MTU, or 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The rest of the ICMP header, host order.
    pub rest: u32,
}

/// The first eight bytes behind the offending packet's IP header: what an error must quote
/// (RFC 792).
pub type Quoted = [Be32; 2];

/// Length of an error of ours behind its IP header: ICMP header, quoted IP header, eight bytes.
const fn length(header: usize) -> u16 {
    (size_of::<IcmpHdr>() + header + size_of::<Quoted>()) as u16
}

#[inline(always)]
fn header(message: Message, behind: u64) -> IcmpHdr {
    let Message { kind, code, rest } = message;
    let mut icmp = IcmpHdr { kind, code, check: 0, rest: Be32::new(rest) };
    let words = u16::from_ne_bytes([kind, code]) as u64 + icmp.rest.raw() as u64;
    icmp.check = !fold(words + behind);
    icmp
}

/// The headers of an ICMP error about a packet with these headers, from its destination to its
/// source. Both IP header and `quoted` follow them.
#[inline(always)]
pub fn compose_v4(ip: &Ipv4Hdr, quoted: &Quoted, message: Message) -> (Ipv4Hdr, IcmpHdr) {
    let quote = ipv4_sum(ip) + ip.check as u64 + quoted[0].raw() as u64 + quoted[1].raw() as u64;
    let outer = ipv4_answer(ip, length(size_of::<Ipv4Hdr>()), PROTO_ICMP);
    (outer, header(message, quote))
}

/// The same for ICMPv6.
#[inline(always)]
pub fn compose_v6(ip: &Ipv6Hdr, quoted: &Quoted, message: Message) -> (Ipv6Hdr, IcmpHdr) {
    let outer = ipv6_answer(ip, length(size_of::<Ipv6Hdr>()), PROTO_ICMPV6);
    let mut sum = ipv6_pseudo_sum(&outer, length(size_of::<Ipv6Hdr>()), PROTO_ICMPV6);
    sum += quoted[0].raw() as u64 + quoted[1].raw() as u64;
    sum += ip.version_class_flow.raw() as u64 + ip.payload_length.raw() as u64;
    sum += u16::from_ne_bytes([ip.next_header, ip.hop_limit]) as u64;
    let mut i = 0;
    while i < 4 {
        sum += ip.src.0[i].raw() as u64 + ip.dst.0[i].raw() as u64;
        i += 1;
    }
    (outer, header(message, sum))
}
