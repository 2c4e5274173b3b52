//! The order of things: parse, flow, service, select, rewrite, transmit.

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{PROTO_TCP, PROTO_UDP, Verdict};
use lb_common::packet::headers::{ETH_IPV4, ETH_IPV6, EthHdr};

use crate::{
    at::Frame,
    family::{Family, V4, V6},
    step::{
        established, forward, open_tcp, open_udp,
        parse::{self, Packet},
        refuse,
        transmit::{Way, drafted},
    },
};

/// `Ok` means transmit.
#[inline(always)]
pub fn process(ctx: *mut xdp_md) -> Result<Way, Verdict> {
    let frame = Frame::new(ctx);
    let eth: &mut EthHdr = frame.at(0).ok_or(Verdict::NotOurs)?;
    if eth.ethertype == ETH_IPV4 {
        let packet = parse::v4(&frame)?;
        route::<V4>(ctx, &frame, &packet)
    } else if eth.ethertype == ETH_IPV6 {
        let packet = parse::v6(&frame)?;
        route::<V6>(ctx, &frame, &packet)
    } else {
        Err(Verdict::NotOurs)
    }
}

/// Flow first: a packet of a known connection needs nothing else.
#[inline(always)]
fn route<F: Family>(
    ctx: *mut xdp_md,
    frame: &Frame,
    packet: &Packet<F::A>,
) -> Result<Way, Verdict> {
    if packet.protocol == PROTO_TCP {
        return match tcp::<F>(ctx, frame, packet) {
            Err(verdict) if verdict.resets() => Err(refuse::with_reset::<F>(ctx, packet, verdict)),
            result => result,
        };
    }
    if packet.protocol == PROTO_UDP {
        if let Some(flow) = F::udp(&packet.key) {
            if established::udp::<F>(flow) {
                return forward::udp::<F>(ctx, frame, packet, flow);
            }
        }
        drafted(open_udp::cold::<F>(ctx, packet))?;
        return Way::unpack(forward::drafted_udp::<F>(ctx, packet));
    }
    Err(Verdict::NotOurs)
}

#[inline(always)]
fn tcp<F: Family>(ctx: *mut xdp_md, frame: &Frame, packet: &Packet<F::A>) -> Result<Way, Verdict> {
    if let Some(flow) = F::tcp(&packet.key)
        && established::tcp::<F>(packet, flow)
    {
        return forward::tcp::<F>(frame, packet, flow);
    }
    drafted(open_tcp::cold::<F>(ctx, packet))?;
    Way::unpack(forward::drafted_tcp::<F>(ctx, packet))
}
