//! Properties of the rewrites, with full recomputation of every checksum as the oracle.
//!
//! The oracle reads bytes in network order and shares no code with the incremental updates.

use lb_common::abi::{Addr, AddrV4, AddrV6, Be16, Flow, FlowKey, Hop, Mac, Real};
use lb_common::packet::headers::{
    EthHdr, IcmpHdr, IpHdr, Ipv4Hdr, Ipv6Hdr, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP,
    TcpHdr, UdpHdr,
};
use lb_common::packet::icmp::{
    Message, Quoted, compose_v4, compose_v6, translate_error, translate_quote,
};
use lb_common::packet::reset::{reset_v4, reset_v6};
use lb_common::packet::rewrite::{Deltas, to_hop, to_real, translate_tcp, translate_udp};
use proptest::prelude::*;

/// One's complement sum of bytes in network order (RFC 1071).
fn ones(bytes: &[u8]) -> u16 {
    let mut total: u32 = 0;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The pseudo header of an IP packet (RFC 9293 §3.1, RFC 8200 §8.1).
fn pseudo(ip: &[u8], protocol: u8, length: usize) -> Vec<u8> {
    let addresses = if ip[0] >> 4 == 4 { &ip[12..20] } else { &ip[8..40] };
    let mut bytes = addresses.to_vec();
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

fn header(ip: &[u8]) -> usize {
    if ip[0] >> 4 == 4 { 20 } else { 40 }
}

/// Where the transport checksum lies in a packet.
fn check_at(ip: &[u8], protocol: u8) -> usize {
    header(ip)
        + match protocol {
            PROTO_TCP => 16,
            PROTO_UDP => 6,
            _ => 2,
        }
}

/// The transport checksum, recomputed from nothing.
fn recomputed(ip: &[u8], protocol: u8) -> u16 {
    let mut copy = ip.to_vec();
    copy[check_at(ip, protocol)..][..2].fill(0);
    let l4 = &copy[header(ip)..];
    let mut all = if protocol == PROTO_ICMP { Vec::new() } else { pseudo(ip, protocol, l4.len()) };
    all.extend(l4);
    !ones(&all)
}

fn check(ip: &[u8], protocol: u8) -> u16 {
    let at = check_at(ip, protocol);
    u16::from_be_bytes([ip[at], ip[at + 1]])
}

fn set_check(ip: &mut [u8], protocol: u8, value: u16) {
    let at = check_at(ip, protocol);
    ip[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn mend(ip: &mut [u8], protocol: u8) {
    mend_header(ip);
    let value = recomputed(ip, protocol);
    let value = if protocol == PROTO_UDP && value == 0 { 0xffff } else { value };
    set_check(ip, protocol, value);
}

fn mend_header(ip: &mut [u8]) {
    if ip[0] >> 4 == 4 {
        ip[10..12].fill(0);
        let value = !ones(&ip[..20]);
        ip[10..12].copy_from_slice(&value.to_be_bytes());
    }
}

/// 0x0000 and 0xFFFF are the same number in one's complement.
fn alike(a: u16, b: u16) -> bool {
    a == b || matches!((a, b), (0, 0xffff) | (0xffff, 0))
}

/// Whether the IPv4 header's checksum is right; IPv6 has none.
fn header_is_right(ip: &[u8]) -> bool {
    ip[0] >> 4 == 6 || ones(&ip[..20]) == 0xffff
}

/// Reads a header, lets `edit` change it, and writes it back.
fn edit<T: Copy, R>(bytes: &mut [u8], at: usize, edit: impl FnOnce(&mut T) -> R) -> R {
    assert!(bytes.len() >= at + size_of::<T>());
    let place = bytes[at..].as_mut_ptr().cast::<T>();
    // SAFETY: the bytes are there (asserted), and header types have no invalid bit patterns.
    let mut header = unsafe { place.read_unaligned() };
    let result = edit(&mut header);
    // SAFETY: as above.
    unsafe { place.write_unaligned(header) };
    result
}

fn read<T: Copy>(bytes: &[u8], at: usize) -> T {
    edit(&mut bytes.to_vec(), at, |header: &mut T| *header)
}

fn bytes_of<T: Copy>(value: T) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<T>()];
    edit(&mut bytes, 0, |place: &mut T| *place = value);
    bytes
}

/// An address of either family: IPv4 takes the first four bytes.
type End = [u8; 16];

/// Addresses of either family.
trait FromEnd: Addr {
    fn from_end(end: End) -> Self;
}

impl FromEnd for AddrV4 {
    fn from_end(b: End) -> Self {
        std::net::Ipv4Addr::new(b[0], b[1], b[2], b[3]).into()
    }
}

impl FromEnd for AddrV6 {
    fn from_end(b: End) -> Self {
        std::net::Ipv6Addr::from(b).into()
    }
}

/// What a proptest case draws: a packet and what becomes of its addresses and ports.
#[derive(Clone, Debug)]
struct Case {
    v6: bool,
    protocol: u8,
    from: [End; 2],
    ports: [u16; 2],
    to: [End; 2],
    to_ports: [u16; 2],
    hops: u8,
    flags: u8,
    words: [u8; 12],
    payload: Vec<u8>,
    /// Makes the transport checksum 0 before (1) or after (2) the rewrite.
    edge: u8,
    no_checksum: bool,
}

fn case(protocols: &'static [u8]) -> impl Strategy<Value = Case> {
    let ends = (any::<[End; 2]>(), any::<[End; 2]>());
    let ports = (any::<[u16; 2]>(), any::<[u16; 2]>());
    let rest = (2u8.., any::<u8>(), any::<[u8; 12]>(), prop::collection::vec(any::<u8>(), 2..90));
    let protocol = prop::sample::select(protocols);
    (any::<bool>(), protocol, ends, ports, rest, 0u8..3, prop::bool::weighted(0.2)).prop_map(
        |(v6, protocol, (from, to), (ports, to_ports), rest, edge, no_checksum)| {
            let (hops, flags, words, payload) = rest;
            Case {
                v6,
                protocol,
                from,
                ports,
                to,
                to_ports,
                hops,
                flags,
                words,
                payload,
                edge,
                no_checksum: no_checksum && protocol == PROTO_UDP,
            }
        },
    )
}

fn key<A: FromEnd>(ends: &[End; 2], ports: [u16; 2]) -> FlowKey<A> {
    let [src, dst] = ends.map(A::from_end);
    FlowKey { src, dst, sport: Be16::new(ports[0]), dport: Be16::new(ports[1]) }
}

impl Case {
    /// An IP packet with these addresses and ports, its checksums right.
    fn packet(&self, ends: &[End; 2], ports: [u16; 2]) -> Vec<u8> {
        let mut l4: Vec<u8> = ports.iter().flat_map(|p| p.to_be_bytes()).collect();
        if self.protocol == PROTO_TCP {
            l4.extend(&self.words[..8]); // sequence numbers
            l4.extend([0x50, self.flags]);
            l4.extend(&self.words[8..10]); // window
            l4.extend([0, 0]);
            l4.extend(&self.words[10..]); // urgent pointer
        } else {
            l4.extend((8 + self.payload.len() as u16).to_be_bytes());
            l4.extend([0, 0]);
        }
        l4.extend(&self.payload);
        let length = l4.len() as u16;
        let mut ip = Vec::new();
        if self.v6 {
            ip.extend([0x60, self.words[0] & 0xf, self.words[1], self.words[2]]);
            ip.extend(length.to_be_bytes());
            ip.extend([self.protocol, self.hops]);
            ip.extend(ends.iter().flatten());
        } else {
            ip.extend([0x45, self.words[0]]);
            ip.extend((20 + length).to_be_bytes());
            ip.extend([self.words[1], self.words[2], 0x40, 0, self.hops, self.protocol, 0, 0]);
            ip.extend(&ends[0][..4]);
            ip.extend(&ends[1][..4]);
        }
        ip.extend(l4);
        mend(&mut ip, self.protocol);
        ip
    }

    /// The packet before the rewrite.
    fn before(&self) -> Vec<u8> {
        let mut case = self.clone();
        if self.edge != 0 {
            // A word equal to the checksum of the rest makes the checksum 0.
            case.payload[..2].fill(0);
            let packet = if self.edge == 1 {
                case.packet(&self.from, self.ports)
            } else {
                case.packet(&self.to, self.to_ports)
            };
            case.payload[..2].copy_from_slice(&recomputed(&packet, self.protocol).to_be_bytes());
        }
        let mut packet = case.packet(&self.from, self.ports);
        if self.no_checksum {
            set_check(&mut packet, self.protocol, 0);
        }
        packet
    }

    fn translate<I: IpHdr<Addr: FromEnd>>(&self, packet: &mut [u8]) {
        let to = key::<I::Addr>(&self.to, self.to_ports);
        let Deltas { ip, l4 } = Deltas::between(&key(&self.from, self.ports), &to);
        let flow = Flow { to, ip_delta: ip, l4_delta: l4, ..Flow::default() };
        let (ip, l4) = packet.split_at_mut(size_of::<I>());
        edit(ip, 0, |ip: &mut I| {
            if self.protocol == PROTO_TCP {
                edit(l4, 0, |tcp: &mut TcpHdr| translate_tcp(ip, tcp, &flow));
            } else {
                edit(l4, 0, |udp: &mut UdpHdr| translate_udp(ip, udp, &flow));
            }
        });
    }

    /// The packet after the rewrite, by medlb.
    fn translated(&self, before: &[u8]) -> Vec<u8> {
        let mut packet = before.to_vec();
        if self.v6 {
            self.translate::<Ipv6Hdr>(&mut packet);
        } else {
            self.translate::<Ipv4Hdr>(&mut packet);
        }
        packet
    }

    /// The packet after the rewrite, by the oracle: bytes replaced, checksums recomputed.
    fn expected(&self, before: &[u8]) -> Vec<u8> {
        let mut packet = before.to_vec();
        if self.v6 {
            packet[7] -= 1;
            packet[8..24].copy_from_slice(&self.to[0]);
            packet[24..40].copy_from_slice(&self.to[1]);
        } else {
            packet[8] -= 1;
            packet[12..16].copy_from_slice(&self.to[0][..4]);
            packet[16..20].copy_from_slice(&self.to[1][..4]);
        }
        let at = header(&packet);
        packet[at..at + 2].copy_from_slice(&self.to_ports[0].to_be_bytes());
        packet[at + 2..at + 4].copy_from_slice(&self.to_ports[1].to_be_bytes());
        mend(&mut packet, self.protocol);
        if self.no_checksum {
            set_check(&mut packet, self.protocol, 0);
        }
        packet
    }

    /// The same rewrite the other way: replies.
    fn back(&self) -> Self {
        let (mut from, mut to) = (self.to, self.from);
        let (mut ports, mut to_ports) = (self.to_ports, self.ports);
        from.reverse();
        to.reverse();
        ports.reverse();
        to_ports.reverse();
        Self { from, ports, to, to_ports, ..self.clone() }
    }

    /// NAT: the client's address and port stay.
    fn keeping_the_source(mut self) -> Self {
        self.to[0] = self.from[0];
        self.to_ports[0] = self.ports[0];
        self
    }
}

/// Both packets are the same but for the two representations of 0 in checksums.
fn same(got: &[u8], want: &[u8], protocol: u8) -> Result<(), TestCaseError> {
    prop_assert!(header_is_right(got), "IPv4 header checksum");
    let (a, b) = (check(got, protocol), check(want, protocol));
    if protocol == PROTO_UDP {
        prop_assert_eq!(a == 0, b == 0, "0 means: no checksum");
    }
    prop_assert!(alike(a, b), "{:#06x} {:#06x}", a, b);
    let (mut got, mut want) = (got.to_vec(), want.to_vec());
    for packet in [&mut got, &mut want] {
        set_check(packet, protocol, 0);
        mend_header(packet);
    }
    prop_assert_eq!(got, want);
    Ok(())
}

/// Where the source address lies, and how long an address is.
fn source(v6: bool) -> (usize, usize) {
    if v6 { (8, 16) } else { (12, 4) }
}

/// The packet with its ends swapped, as a reply has them. Checksums do not change.
fn turned(packet: &[u8], v6: bool) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let ((first, length), at) = (source(v6), header(&packet));
    let (a, b) = packet[first..first + 2 * length].split_at_mut(length);
    a.swap_with_slice(b);
    let (a, b) = packet[at..at + 4].split_at_mut(2);
    a.swap_with_slice(b);
    packet
}

fn translate_icmp<I: IpHdr<Addr: FromEnd>>(packet: &mut [u8], case: &Case, to: &[End; 2]) {
    let (at, udp) = (size_of::<I>(), case.protocol == PROTO_UDP);
    let inner_to = key::<I::Addr>(&case.to, case.to_ports);
    let (head, quote) = packet.split_at_mut(at + size_of::<IcmpHdr>());
    let (inner, ports) = quote.split_at_mut(at);
    let changed = edit(inner, 0, |ip: &mut I| {
        edit(ports, 0, |ports: &mut UdpHdr| translate_quote(ip, ports, udp, &inner_to))
    });
    let (ip, icmp) = head.split_at_mut(at);
    let [src, dst] = to.map(I::Addr::from_end);
    edit(ip, 0, |ip: &mut I| {
        edit(icmp, 0, |icmp: &mut IcmpHdr| {
            translate_error(ip, icmp, src, dst, changed, at == size_of::<Ipv6Hdr>());
        });
    });
}

/// An ICMP error from `router` that quotes a packet, all of it or eight bytes of its payload.
fn icmp_error(case: &Case, router: End, quoted: &[u8], whole: bool) -> Vec<u8> {
    let protocol = if case.v6 { PROTO_ICMPV6 } else { PROTO_ICMP };
    let at = header(quoted);
    let mut packet = case.packet(&[router, case.from[0]], [0x0300, 0]);
    packet.truncate(at + 4);
    packet.extend([0; 4]);
    packet.extend(if whole { quoted } else { &quoted[..at + 8] });
    let length = (packet.len() - if case.v6 { 40 } else { 0 }) as u16;
    let field = if case.v6 { 4 } else { 2 };
    packet[field..field + 2].copy_from_slice(&length.to_be_bytes());
    packet[if case.v6 { 6 } else { 9 }] = protocol;
    mend(&mut packet, protocol);
    packet
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..Default::default() })]

    /// NAT towards the server and back.
    #[test]
    fn nat_equals_recomputation(case in case(&[PROTO_TCP, PROTO_UDP])) {
        let case = case.keeping_the_source();
        for case in [case.back(), case] {
            let before = case.before();
            same(&case.translated(&before), &case.expected(&before), case.protocol)?;
        }
    }

    /// SNAT towards the server and back.
    #[test]
    fn snat_equals_recomputation(case in case(&[PROTO_TCP, PROTO_UDP])) {
        for case in [case.back(), case] {
            let before = case.before();
            same(&case.translated(&before), &case.expected(&before), case.protocol)?;
        }
    }

    /// There and back again: only the hops differ.
    #[test]
    fn a_rewrite_and_its_reverse_restore_the_packet(case in case(&[PROTO_TCP, PROTO_UDP])) {
        prop_assume!(case.hops > 2);
        let before = case.before();
        let there = turned(&case.translated(&before), case.v6);
        let mut again = turned(&case.back().translated(&there), case.v6);
        again[if case.v6 { 7 } else { 8 }] += 2;
        mend_header(&mut again);
        same(&again, &before, case.protocol)?;
    }

    /// DR changes the MAC addresses and nothing else; so does the way back.
    #[test]
    fn dr_touches_mac_addresses_only(
        frame in any::<[u8; 14]>(), dst in any::<[u8; 6]>(), src in any::<[u8; 6]>(),
    ) {
        let (dst_mac, src_mac) = (Mac::from(dst), Mac::from(src));
        let real = Real { dst_mac, src_mac, ..Real::default() };
        let want: Vec<u8> = [&dst[..], &src, &frame[12..]].concat();
        let mut out = frame.to_vec();
        edit(&mut out, 0, |eth: &mut EthHdr| to_real(eth, &real));
        prop_assert_eq!(&out, &want);
        let mut out = frame.to_vec();
        let hop = Hop { mac: dst_mac, ..Hop::default() };
        edit(&mut out, 0, |eth: &mut EthHdr| to_hop(eth, &hop, &src_mac));
        prop_assert_eq!(&out, &want);
    }

    /// A RST goes the other way, acknowledges what it answers, and has right checksums.
    #[test]
    fn resets_have_right_checksums_and_numbers(case in case(&[PROTO_TCP])) {
        let before = case.before();
        let tcp: TcpHdr = read(&before, header(&before));
        let payload = case.payload.len() as u32;
        let (mut out, reset) = if case.v6 {
            let (ip, reset) = reset_v6(&read(&before, 0), &tcp, payload);
            (bytes_of(ip), reset)
        } else {
            let (ip, reset) = reset_v4(&read(&before, 0), &tcp, payload);
            (bytes_of(ip), reset)
        };
        out.extend(bytes_of(reset));
        prop_assert!(header_is_right(&out));
        prop_assert!(alike(check(&out, PROTO_TCP), recomputed(&out, PROTO_TCP)));
        let (first, length) = source(case.v6);
        let ends = |packet: &[u8]| packet[first..first + 2 * length].to_vec();
        prop_assert_eq!(ends(&out), ends(&turned(&before, case.v6)));
        prop_assert_eq!((reset.sport, reset.dport), (tcp.dport, tcp.sport));
        if tcp.flags & 16 != 0 {
            prop_assert_eq!((reset.seq, reset.flags), (tcp.ack, 4));
        } else {
            let length = payload + u32::from(tcp.flags & 1) + u32::from(tcp.flags >> 1 & 1);
            prop_assert_eq!(reset.ack.get(), tcp.seq.get().wrapping_add(length));
            prop_assert_eq!((reset.seq.get(), reset.flags), (0, 4 | 16));
        }
    }

    /// An ICMP error of ours quotes the packet and has right checksums.
    #[test]
    fn composed_errors_have_right_checksums(
        case in case(&[PROTO_TCP, PROTO_UDP]), kind in any::<u8>(), code in any::<u8>(),
        rest in any::<u32>(),
    ) {
        let before = case.before();
        let (at, message) = (header(&before), Message { kind, code, rest });
        let quoted: Quoted = read(&before, at);
        let (mut out, icmp) = if case.v6 {
            let (ip, icmp) = compose_v6(&read(&before, 0), &quoted, message);
            (bytes_of(ip), icmp)
        } else {
            let (ip, icmp) = compose_v4(&read(&before, 0), &quoted, message);
            (bytes_of(ip), icmp)
        };
        out.extend(bytes_of(icmp));
        out.extend(&before[..at + size_of::<Quoted>()]);
        let protocol = if case.v6 { PROTO_ICMPV6 } else { PROTO_ICMP };
        prop_assert!(header_is_right(&out));
        prop_assert!(alike(check(&out, protocol), recomputed(&out, protocol)));
        let length = if case.v6 { [out[4], out[5]] } else { [out[2], out[3]] };
        let headers = if case.v6 { 40 } else { 0 };
        prop_assert_eq!(usize::from(u16::from_be_bytes(length)) + headers, out.len());
    }

    /// A passing ICMP error: outer and quoted packet are translated, all four checksums are right.
    #[test]
    fn translated_errors_equal_recomputation(
        case in case(&[PROTO_TCP, PROTO_UDP]), router in any::<End>(), to in any::<[End; 2]>(),
        whole in any::<bool>(),
    ) {
        let quoted = case.before();
        let protocol = if case.v6 { PROTO_ICMPV6 } else { PROTO_ICMP };
        let at = header(&quoted);
        let mut packet = icmp_error(&case, router, &quoted, whole);
        if case.v6 {
            translate_icmp::<Ipv6Hdr>(&mut packet, &case, &to);
        } else {
            translate_icmp::<Ipv4Hdr>(&mut packet, &case, &to);
        }
        prop_assert!(header_is_right(&packet));
        prop_assert!(alike(check(&packet, protocol), recomputed(&packet, protocol)));
        let inner = &packet[at + 8..];
        prop_assert!(header_is_right(inner));
        if case.protocol == PROTO_UDP {
            let (a, b) = (check(inner, PROTO_UDP), check(&quoted, PROTO_UDP));
            prop_assert_eq!(a == 0, b == 0);
            if whole && a != 0 {
                prop_assert!(alike(a, recomputed(inner, PROTO_UDP)));
            }
        }
        prop_assert_eq!(&inner[at..at + 2], &case.to_ports[0].to_be_bytes()[..]);
        prop_assert_eq!(&inner[at + 2..at + 4], &case.to_ports[1].to_be_bytes()[..]);
    }
}
