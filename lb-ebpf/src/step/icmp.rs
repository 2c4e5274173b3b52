//! ICMP errors about flows: to the real server or the client that the quoted packet belongs to,
//! with the quotation translated. Everything else in ICMP is the kernel's.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Be16, FilterBit, Flow, FlowKey, PROTO_TCP, PROTO_UDP, Verdict, flow_flags, mode},
    packet::{
        headers::{IPV4_OFFSET, IcmpHdr, IpHdr, Ipv4Hdr, UdpHdr},
        icmp::{self, kind},
    },
};

use crate::{
    at::Frame,
    family::Family,
    maps,
    step::{
        forward, half_open,
        opening::Openings,
        parse::{L3, Packet},
        record,
        transmit::Way,
    },
};

/// Called through `cold`.
#[inline(always)]
pub fn cold<F: Openings>(ctx: *mut xdp_md, packet: &Packet<F::A>, _: u32) -> u64 {
    Way::pack(run::<F>(ctx, packet))
}

/// The quoted packet: where its ports are, its protocol, its addresses and ports.
struct Quote<A> {
    l4: usize,
    protocol: u8,
    key: FlowKey<A>,
}

#[inline(always)]
fn run<F: Openings>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> Result<Way, Verdict> {
    let frame = Frame::new(ctx);
    let icmp: &mut IcmpHdr = frame.at(packet.l4()).ok_or(Verdict::NotOurs)?;
    if !F::is_error(icmp.kind) {
        return Err(Verdict::NotOurs);
    }
    let quote = quote::<F>(&frame, packet.l4() + size_of::<IcmpHdr>()).ok_or(Verdict::NotOurs)?;
    if quote.l4 + size_of::<UdpHdr>() > L3 + packet.bytes as usize {
        return Err(Verdict::NotOurs); // what looks like a quotation is padding
    }
    if maps::filter(quote.key.src) & FilterBit::VIP == 0
        && maps::filter(quote.key.dst) & FilterBit::REAL == 0
    {
        return Err(Verdict::NotOurs);
    }
    // The flow that answers the quoted packet is the one whose receiver must hear of it.
    let key = quote.key.reversed();
    let flow = if quote.protocol == PROTO_TCP {
        F::tcp(&key).or_else(|| half_open::about::<F>(&key))
    } else {
        F::udp(&key)
    };
    let draft = record::draft::<F>(flow.ok_or(Verdict::NotOurs)?)?;
    let real = maps::real(draft.flow.real).ok_or(Verdict::ServerDown)?;
    if draft.flow.flags & flow_flags::TRANSLATE != 0 {
        if packet.hops <= 1 {
            return Err(maps::blame(real.service, Verdict::TtlExpired));
        }
        let from_client = draft.flow.flags & flow_flags::REPLY == 0;
        translate::<F>(ctx, packet, &quote, &draft.flow, from_client && real.mode == mode::NAT)
            .ok_or(Verdict::Malformed)?;
    }
    forward::leave::<F>(&Frame::new(ctx), packet, &mut draft.flow, real)
}

#[inline(always)]
fn quote<F: Family>(frame: &Frame, at: usize) -> Option<Quote<F::A>> {
    let ip: &mut F::Ip = frame.at(at)?;
    let (protocol, header) = F::quoted(ip)?;
    if protocol != PROTO_TCP && protocol != PROTO_UDP {
        return None;
    }
    let l4 = at + header;
    let ports: &mut UdpHdr = frame.at(l4)?;
    let key = FlowKey { src: ip.src(), dst: ip.dst(), sport: ports.sport, dport: ports.dport };
    Some(Quote { l4, protocol, key })
}

/// Rewrites the quotation to the packet that the receiver once sent, and the error's own addresses.
/// `keep_source`: the router that sent it stays visible (NAT, towards the real server).
#[inline(always)]
fn translate<F: Family>(
    ctx: *mut xdp_md,
    packet: &Packet<F::A>,
    quote: &Quote<F::A>,
    flow: &Flow<F::A>,
    keep_source: bool,
) -> Option<()> {
    let frame = Frame::new(ctx);
    let inner: &mut F::Ip = frame.at(packet.l4() + size_of::<IcmpHdr>())?;
    let ports: &mut UdpHdr = frame.at(quote.l4)?;
    let udp = quote.protocol == PROTO_UDP;
    let changed = icmp::translate_quote(inner, ports, udp, &flow.to.reversed());
    // Anew: LLVM would conclude from the quotation's place that this header lies in the frame, which
    // the verifier does not (6.18, LLVM 22).
    let frame = Frame::new(ctx);
    let ip: &mut F::Ip = frame.at(L3)?;
    let icmp: &mut IcmpHdr = frame.at(packet.l4())?;
    let src = if keep_source { ip.src() } else { flow.to.src };
    icmp::translate_error(ip, icmp, src, flow.to.dst, changed, F::V6);
    Some(())
}

/// IPv4: types that quote a packet.
#[inline(always)]
pub fn is_v4_error(kind: u8) -> bool {
    matches!(kind, kind::UNREACHABLE | kind::TIME_EXCEEDED | kind::PARAMETER)
}

/// IPv6: types that quote a packet.
#[inline(always)]
pub fn is_v6_error(kind: u8) -> bool {
    matches!(kind, kind::V6_UNREACHABLE..=kind::V6_LAST_ERROR)
}

/// Protocol and header length of a quoted IPv4 packet; none for a later fragment, which has no
/// ports.
#[inline(always)]
pub fn quoted_v4(ip: &Ipv4Hdr) -> Option<(u8, usize)> {
    let header = ((ip.version_ihl & 0xf) as usize) << 2;
    let later = ip.fragment.raw() & Be16::new(IPV4_OFFSET).raw() != 0;
    if later || header < size_of::<Ipv4Hdr>() { None } else { Some((ip.protocol, header)) }
}
