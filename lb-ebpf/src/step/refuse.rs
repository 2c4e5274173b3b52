//! Answers to packets that cannot be forwarded: made in place, sent back where they came from.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
};
use lb_common::{
    abi::{PROTO_TCP, Verdict},
    packet::{
        headers::{EthHdr, IcmpHdr, TcpHdr, tcp_flags::RST},
        icmp::{Message, Quoted},
    },
};

use crate::{
    at::{self, Frame},
    family::Family,
    maps,
    step::{
        cold::Cold,
        forward, half_open,
        opening::Openings,
        parse::{L3, Packet},
    },
};

/// Shortest Ethernet frame without its checksum (IEEE 802.3 §3.2.8): not every driver pads.
const SHORTEST: usize = 60;

/// Turns the TCP segment in hand into the RST that answers it, and gives the verdict back. A RST
/// is never answered. Packet pointers of the caller are void afterwards.
#[inline(always)]
pub fn with_reset<F: Cold>(ctx: *mut xdp_md, packet: &Packet<F::A>, verdict: Verdict) -> Verdict {
    if packet.flags & RST != 0 {
        return Verdict::NoFlow;
    }
    if F::reset_with(ctx, packet, 0) != 0 { verdict } else { Verdict::AdjustFailed }
}

/// Called through `cold`; 0: impossible.
#[inline(always)]
pub fn reset<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>, _: u32) -> u64 {
    answer::<F>(ctx, packet).is_some() as u64
}

#[inline(always)]
fn answer<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> Option<()> {
    let frame = Frame::new(ctx);
    let ip: &mut F::Ip = frame.at(L3)?;
    let tcp: &mut TcpHdr = frame.at(packet.l4())?;
    let headers = (packet.l4() - L3) as u32 + ((tcp.offset >> 4) as u32) * 4;
    let payload = packet.bytes.saturating_sub(headers);
    let (new_ip, new_tcp) = F::reset(ip, tcp, payload);

    let wanted = L3 + F::HEADER + size_of::<TcpHdr>();
    let length = at::whole_length(ctx) as usize;
    let wanted = if wanted < SHORTEST && length >= SHORTEST { SHORTEST } else { wanted };
    // SAFETY: the helper checks the new length; all pointers are derived again below.
    if unsafe { bpf_xdp_adjust_tail(ctx, wanted as i32 - length as i32) } != 0 {
        return None;
    }
    let frame = Frame::new(ctx);
    let eth: &mut EthHdr = frame.at(0)?;
    core::mem::swap(&mut eth.dst, &mut eth.src);
    let ip: &mut F::Ip = frame.at(L3)?;
    *ip = new_ip;
    let tcp: &mut TcpHdr = frame.at(L3 + F::HEADER)?;
    *tcp = new_tcp;
    if let Some(padding) = frame.at::<[u8; SHORTEST - 54]>(54)
        && wanted == SHORTEST
    {
        *padding = [0; SHORTEST - 54];
    }
    Some(())
}

/// Turns the packet in hand into the ICMP error that explains the verdict, and gives it back.
/// Packet pointers of the caller are void afterwards.
#[inline(always)]
pub fn with_icmp<F: Cold>(ctx: *mut xdp_md, packet: &Packet<F::A>, verdict: Verdict) -> Verdict {
    let too_big = (verdict as u32 == Verdict::TooBig as u32) as u32;
    if F::explain(ctx, packet, too_big) != 0 { verdict } else { Verdict::AdjustFailed }
}

/// Called through `cold`; 0: impossible.
#[inline(always)]
pub fn icmp<F: Openings>(ctx: *mut xdp_md, packet: &Packet<F::A>, too_big: u32) -> u64 {
    let message = if too_big != 0 {
        let (kind, code) = F::TOO_BIG;
        Message { kind, code, rest: limit::<F>(packet) }
    } else {
        let (kind, code) = F::PORT_UNREACHABLE;
        Message { kind, code, rest: 0 }
    };
    explain::<F>(ctx, packet, message).is_some() as u64
}

/// What the egress interface of the packet's flow takes.
#[inline(always)]
fn limit<F: Openings>(packet: &Packet<F::A>) -> u32 {
    let flow = if packet.protocol == PROTO_TCP {
        F::tcp(&packet.key).or_else(|| half_open::about::<F>(&packet.key))
    } else {
        F::udp(&packet.key)
    };
    let Some(flow) = flow else { return 0 };
    // SAFETY: the look-up gave the pointer in this run of the program.
    let flow = unsafe { &*flow };
    maps::real(flow.real).map_or(0, |real| forward::limit(flow, real))
}

#[inline(always)]
fn explain<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>, message: Message) -> Option<()> {
    let frame = Frame::new(ctx);
    if packet.l4() != L3 + F::HEADER {
        return None; // options or extension headers would have to be quoted in full
    }
    let ip: &mut F::Ip = frame.at(L3)?;
    let quoted: &mut Quoted = frame.at(L3 + F::HEADER)?;
    let (old_ip, old_l4) = (*ip, *quoted);
    let (new_ip, new_icmp) = F::compose(&old_ip, &old_l4, message);

    let quote = L3 + F::HEADER + size_of::<IcmpHdr>();
    let wanted = quote + F::HEADER + size_of::<Quoted>();
    let eth: &mut EthHdr = frame.at(0)?;
    let (dst, src, ethertype) = (eth.dst, eth.src, eth.ethertype);
    // A small datagram's frame may have no room behind it; there always is some in front, and
    // with that the frame is long enough: the quoted packet has at least these headers.
    let grow = (quote - L3) as i32;
    // SAFETY: the helper checks the room; all pointers are derived again below.
    if unsafe { bpf_xdp_adjust_head(ctx, -grow) } != 0 {
        return None;
    }
    let length = at::whole_length(ctx);
    // SAFETY: as above.
    if unsafe { bpf_xdp_adjust_tail(ctx, wanted as i32 - length as i32) } != 0 {
        return None;
    }
    let frame = Frame::new(ctx);
    let eth: &mut EthHdr = frame.at(0)?;
    eth.dst = src;
    eth.src = dst;
    eth.ethertype = ethertype;
    let ip: &mut F::Ip = frame.at(L3)?;
    *ip = new_ip;
    let icmp: &mut IcmpHdr = frame.at(L3 + F::HEADER)?;
    *icmp = new_icmp;
    let ip: &mut F::Ip = frame.at(quote)?;
    *ip = old_ip;
    let quoted: &mut Quoted = frame.at(quote + F::HEADER)?;
    *quoted = old_l4;
    Some(())
}
