//! The rewrite of a packet whose flow is known.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Flow, Real, Verdict, flow_flags, real_flags},
    packet::{
        headers::{EthHdr, TcpHdr, UdpHdr, tcp_flags::RST},
        rewrite,
    },
};

use crate::{
    at::Frame,
    family::Family,
    maps,
    step::{
        parse::{L3, Packet},
        record,
        transmit::{Way, drafted},
    },
};

/// TCP, either direction.
#[inline(always)]
pub fn tcp<F: Family>(
    frame: &Frame,
    packet: &Packet<F::A>,
    flow: *mut Flow<F::A>,
) -> Result<Way, Verdict> {
    // SAFETY: the look-up gave the pointer in this run of the program.
    let flow = unsafe { &mut *flow };
    let real = maps::real(flow.real).ok_or(Verdict::ServerDown)?;
    if real.flags & real_flags::RESET != 0 {
        let rst = packet.flags & RST != 0;
        let verdict = if rst { Verdict::ServerDown } else { Verdict::ServerDownReset };
        return Err(maps::blame(real.service, verdict));
    }
    if flow.flags & flow_flags::TRANSLATE != 0 {
        if packet.hops <= 1 {
            return Err(maps::blame(real.service, Verdict::TtlExpired));
        }
        let tcp: &mut TcpHdr = frame.at(packet.l4).ok_or(Verdict::Malformed)?;
        let ip: &mut F::Ip = frame.at(L3).ok_or(Verdict::Malformed)?;
        rewrite::translate_tcp(ip, tcp, flow);
    }
    leave::<F>(frame, packet, flow, real)
}

/// TCP, by the flow in the draft. Not inlined: opening packets only.
#[inline(never)]
pub fn drafted_tcp<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> u64 {
    Way::pack(match F::draft() {
        Some(draft) => tcp::<F>(&Frame::new(ctx), packet, &mut draft.flow),
        None => Err(Verdict::FlowTableFull),
    })
}

/// UDP, by the flow in the draft.
#[inline(never)]
pub fn drafted_udp<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> u64 {
    Way::pack(match F::draft().and_then(|draft| Some((maps::real(draft.flow.real)?, draft))) {
        Some((real, draft)) => datagram::<F>(&Frame::new(ctx), packet, &mut draft.flow, real),
        None => Err(Verdict::FlowTableFull),
    })
}

/// UDP, either direction.
#[inline(always)]
pub fn udp<F: Family>(
    ctx: *mut xdp_md,
    frame: &Frame,
    packet: &Packet<F::A>,
    flow: *mut Flow<F::A>,
) -> Result<Way, Verdict> {
    // SAFETY: the look-up gave the pointer in this run of the program.
    let flow = unsafe { &mut *flow };
    let real = maps::real(flow.real).ok_or(Verdict::ServerDown)?;
    if real.flags & real_flags::RESET != 0 {
        if flow.flags & flow_flags::REPLY != 0 {
            return Err(maps::blame(real.service, Verdict::ServerDown));
        }
        // A datagram has no connection to reset: it goes to another server.
        drafted(super::open_udp::cold::<F>(ctx, packet))?;
        return Way::unpack(drafted_udp::<F>(ctx, packet));
    }
    datagram::<F>(frame, packet, flow, real)
}

/// The rewrite of a datagram.
#[inline(always)]
pub fn datagram<F: Family>(
    frame: &Frame,
    packet: &Packet<F::A>,
    flow: &mut Flow<F::A>,
    real: &Real,
) -> Result<Way, Verdict> {
    if flow.flags & flow_flags::TRANSLATE != 0 {
        if packet.hops <= 1 {
            return Err(maps::blame(real.service, Verdict::TtlExpired));
        }
        let udp: &mut UdpHdr = frame.at(packet.l4).ok_or(Verdict::Malformed)?;
        let ip: &mut F::Ip = frame.at(L3).ok_or(Verdict::Malformed)?;
        rewrite::translate_udp(ip, udp, flow);
    }
    leave::<F>(frame, packet, flow, real)
}

/// The Ethernet header, the counters, the way out.
#[inline(always)]
fn leave<F: Family>(
    frame: &Frame,
    packet: &Packet<F::A>,
    flow: &mut Flow<F::A>,
    real: &Real,
) -> Result<Way, Verdict> {
    let eth: &mut EthHdr = frame.at(0).ok_or(Verdict::Malformed)?;
    if flow.flags & flow_flags::REPLY != 0 {
        let interface =
            maps::interface(flow.hop.interface as u32).ok_or(Verdict::RedirectFailed)?;
        rewrite::to_hop(eth, &flow.hop, interface.mac);
        maps::count_out(flow.real, packet.bytes);
        return Ok(Way { ifindex: interface.ifindex, interface: flow.hop.interface as u32 });
    }
    if real.flags & real_flags::NEIGHBOUR == 0 {
        return Err(maps::blame(real.service, Verdict::NeighbourUnknown));
    }
    if flow.flags & flow_flags::TRANSLATE != 0 && eth.src != flow.hop.mac {
        record::new_hop::<F>(flow, packet.protocol, eth);
    }
    rewrite::to_real(eth, real);
    maps::count_in(flow.real, packet.bytes);
    Ok(Way { ifindex: real.ifindex, interface: real.interface as u32 })
}
