//! The order of things: parse, flow, service, select, rewrite, transmit.

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{FilterBit, PROTO_TCP, PROTO_UDP, Verdict};
use lb_common::packet::headers::{ETH_IPV4, ETH_IPV6, EthHdr};

use crate::{
    at::Frame,
    family::{V4, V6},
    maps,
    step::{
        cold::Cold,
        established, forward,
        parse::{self, Packet, piece},
        refuse, service,
        transmit::{CHOSEN, DIRECT, OUTBOUND, SERVICE, UNKNOWN, Way, drafted},
    },
};

/// `Ok` means transmit. `tags` are the VLAN tags that the frame came with.
#[inline(always)]
pub fn process(ctx: *mut xdp_md, tags: u32) -> Result<Way, Verdict> {
    let frame = Frame::new(ctx);
    let eth: &mut EthHdr = frame.at(0).ok_or(Verdict::NotOurs)?;
    if eth.ethertype == ETH_IPV4 {
        let packet = parse::v4(ctx, &frame, tags)?;
        family::<V4>(ctx, &frame, &packet)
    } else if eth.ethertype == ETH_IPV6 {
        let packet = parse::v6(ctx, &frame, tags)?;
        family::<V6>(ctx, &frame, &packet)
    } else {
        Err(Verdict::NotOurs)
    }
}

#[inline(always)]
fn family<F: Cold>(ctx: *mut xdp_md, frame: &Frame, packet: &Packet<F::A>) -> Result<Way, Verdict> {
    if packet.piece == piece::LATER {
        return Way::unpack(F::later(ctx, packet, 0));
    }
    let result = route::<F>(ctx, frame, packet);
    match result {
        Err(Verdict::NotOurs) if maps::filter(packet.key.src) & FilterBit::VIP != 0 => {
            return Way::unpack(F::check_answer(ctx, packet, 0));
        }
        Ok(_) if packet.piece == piece::FIRST => {
            F::remember(ctx, packet, 0);
        }
        Err(verdict) if verdict.resets() => {
            return Err(refuse::with_reset::<F>(ctx, packet, verdict));
        }
        Err(verdict) if verdict.explains() => {
            return Err(refuse::with_icmp::<F>(ctx, packet, verdict));
        }
        _ => {}
    }
    result
}

/// Flow first: a packet of a known connection needs nothing else.
#[inline(always)]
fn route<F: Cold>(ctx: *mut xdp_md, frame: &Frame, packet: &Packet<F::A>) -> Result<Way, Verdict> {
    let mut step = UNKNOWN;
    if packet.protocol == PROTO_TCP {
        if let Some(flow) = F::tcp(&packet.key)
            && established::tcp::<F>(packet, flow)
        {
            return forward::tcp::<F>(frame, packet, flow);
        }
        ours::<F>(packet)?;
        step = F::half_open(ctx, packet, 0);
    } else if packet.protocol == PROTO_UDP {
        if let Some(flow) = F::udp(&packet.key)
            && let Some(real) = established::udp::<F>(flow)
        {
            return forward::udp::<F>(frame, packet, flow, real);
        }
        ours::<F>(packet)?;
    } else if packet.protocol == F::ICMP {
        return Way::unpack(F::icmp_error(ctx, packet, 0));
    } else {
        return Err(Verdict::NotOurs);
    }
    if step & 0xff == UNKNOWN {
        step = F::choose(ctx, packet, step as u32 >> SERVICE);
        if step == OUTBOUND {
            step = F::choose_outbound(ctx, packet, 0);
        }
        if step & DIRECT != 0 {
            step = F::record_direct(ctx, packet, step as u32);
        } else if step & CHOSEN != 0 {
            step = F::record(ctx, packet, step as u32);
        }
    }
    drafted(step)?;
    Way::unpack(F::forward_drafted(ctx, packet, 0))
}

/// Here and not in the steps of `cold`: for most packets that are not ours this is the end.
#[inline(always)]
fn ours<F: Cold>(packet: &Packet<F::A>) -> Result<(), Verdict> {
    if service::possible::<F>(packet) { Ok(()) } else { Err(Verdict::NotOurs) }
}
