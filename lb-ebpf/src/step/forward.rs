//! The rewrite of a packet whose flow is known.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Flow, PROTO_TCP, Real, Verdict, flow_flags, real_flags},
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
        established,
        parse::{L3, Packet},
        record,
        transmit::Way,
    },
};

/// Flows that leave by their hop, not by the real server's record. With both bits they lead to a
/// real server that opened the connection.
const BY_HOP: u8 = flow_flags::REPLY | flow_flags::OUTBOUND;

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
        established::give_up::<F>(flow);
        let rst = packet.flags & RST != 0;
        let verdict = if rst { Verdict::ServerDown } else { Verdict::ServerDownReset };
        return Err(maps::blame(real.service, verdict));
    }
    fits(packet, flow, real)?;
    if flow.flags & flow_flags::TRANSLATE != 0 {
        if packet.hops <= 1 {
            return Err(maps::blame(real.service, Verdict::TtlExpired));
        }
        let tcp: &mut TcpHdr = frame.at(packet.l4()).ok_or(Verdict::Malformed)?;
        let ip: &mut F::Ip = frame.at(L3).ok_or(Verdict::Malformed)?;
        rewrite::translate_tcp(ip, tcp, flow);
    }
    leave::<F>(frame, packet, flow, real)
}

/// By the flow in the draft. Called through `cold`: opening packets only.
#[inline(always)]
pub fn drafted<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>, _: u32) -> u64 {
    let Some(draft) = F::draft() else { return Verdict::FlowTableFull as u64 };
    let frame = Frame::new(ctx);
    Way::pack(if packet.protocol == PROTO_TCP {
        tcp::<F>(&frame, packet, &mut draft.flow)
    } else {
        match maps::real(draft.flow.real) {
            Some(real) => udp::<F>(&frame, packet, &mut draft.flow, real),
            None => Err(Verdict::ServerDown),
        }
    })
}

/// UDP, either direction.
#[inline(always)]
pub fn udp<F: Family>(
    frame: &Frame,
    packet: &Packet<F::A>,
    flow: *mut Flow<F::A>,
    real: &Real,
) -> Result<Way, Verdict> {
    // SAFETY: the look-up gave the pointer in this run of the program.
    let flow = unsafe { &mut *flow };
    fits(packet, flow, real)?;
    if flow.flags & flow_flags::TRANSLATE != 0 {
        if packet.hops <= 1 {
            return Err(maps::blame(real.service, Verdict::TtlExpired));
        }
        let udp: &mut UdpHdr = frame.at(packet.l4()).ok_or(Verdict::Malformed)?;
        let ip: &mut F::Ip = frame.at(L3).ok_or(Verdict::Malformed)?;
        rewrite::translate_udp(ip, udp, flow);
    }
    leave::<F>(frame, packet, flow, real)
}

/// The largest packet that fits the flow's egress interface, in bytes; 0: any.
#[inline(always)]
pub fn limit<A>(flow: &Flow<A>, real: &Real) -> u32 {
    if flow.flags & BY_HOP == 0 {
        return real.mtu;
    }
    maps::interface(flow.hop.interface as u32).map_or(0, |interface| interface.mtu)
}

#[inline(always)]
fn fits<A>(packet: &Packet<A>, flow: &Flow<A>, real: &Real) -> Result<(), Verdict> {
    let limit = limit(flow, real);
    if limit != 0 && packet.bytes > limit {
        return Err(maps::blame(real.service, Verdict::TooBig));
    }
    Ok(())
}

/// The Ethernet header, the counters, the way out.
#[inline(always)]
pub fn leave<F: Family>(
    frame: &Frame,
    packet: &Packet<F::A>,
    flow: &mut Flow<F::A>,
    real: &Real,
) -> Result<Way, Verdict> {
    let eth: &mut EthHdr = frame.at(0).ok_or(Verdict::Malformed)?;
    if flow.flags & BY_HOP != 0 {
        let interface =
            maps::interface(flow.hop.interface as u32).ok_or(Verdict::RedirectFailed)?;
        rewrite::to_hop(eth, &flow.hop, &interface.mac);
        if flow.flags & BY_HOP == BY_HOP {
            maps::count_in(flow.real, packet.bytes);
        } else {
            maps::count_out(flow.real, packet.bytes);
        }
        return Ok(Way {
            ifindex: interface.ifindex,
            interface: flow.hop.interface as u32,
            tags: flow.hop.tags.bits(),
        });
    }
    if real.flags & real_flags::NEIGHBOUR == 0 {
        return Err(maps::blame(real.service, Verdict::NeighbourUnknown));
    }
    if flow.flags & flow_flags::TRANSLATE != 0 && eth.src != flow.hop.mac {
        record::new_hop::<F>(flow, packet, eth);
    }
    rewrite::to_real(eth, real);
    maps::count_in(flow.real, packet.bytes);
    Ok(Way { ifindex: real.ifindex, interface: real.interface as u32, tags: real.vlan as u32 })
}
