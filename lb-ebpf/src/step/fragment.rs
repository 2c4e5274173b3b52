//! Fragments follow the flow of their first one, which alone has the ports.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Addr, FilterBit, FragmentKey, PROTO_TCP, Verdict, flow_flags},
    packet::headers::IpHdr,
};

use crate::{
    at::Frame,
    maps,
    step::{
        forward, half_open,
        opening::Openings,
        parse::{L3, Packet},
        record,
        transmit::Way,
    },
};

#[inline(always)]
fn key<A: Addr>(packet: &Packet<A>) -> FragmentKey<A> {
    FragmentKey {
        src: packet.key.src,
        dst: packet.key.dst,
        id: packet.id,
        protocol: packet.protocol as u32,
    }
}

/// Notes where a first fragment went, for those that follow. Called through `cold`.
#[inline(always)]
pub fn remember<F: Openings>(_: *mut xdp_md, packet: &Packet<F::A>, _: u32) -> u64 {
    let flow = if packet.protocol == PROTO_TCP {
        F::tcp(&packet.key).or_else(|| half_open::about::<F>(&packet.key))
    } else {
        F::udp(&packet.key)
    };
    if let Some(flow) = flow {
        // SAFETY: the look-up gave the pointer in this run of the program.
        F::fragment_insert(&key(packet), unsafe { &*flow });
    }
    0
}

/// Finds the flow of a later fragment and forwards it. Called through `cold`.
#[inline(always)]
pub fn later<F: Openings>(ctx: *mut xdp_md, packet: &Packet<F::A>, _: u32) -> u64 {
    Way::pack(run::<F>(ctx, packet))
}

#[inline(always)]
fn run<F: Openings>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> Result<Way, Verdict> {
    let to_vip = maps::filter(packet.key.dst) & FilterBit::VIP != 0;
    if !to_vip && maps::filter(packet.key.src) & FilterBit::REAL == 0 {
        return Err(Verdict::NotOurs);
    }
    let Some(flow) = F::fragment(&key(packet)) else {
        // The kernel could do no better with a VIP's fragment; other packets are its own.
        let ours = to_vip && F::vip(&packet.key.dst).is_some();
        return Err(if ours { Verdict::FragmentUnmatched } else { Verdict::NotOurs });
    };
    record::draft::<F>(flow)?;
    let draft = F::draft().ok_or(Verdict::FlowTableFull)?;
    let frame = Frame::new(ctx);
    let real = maps::real(draft.flow.real).ok_or(Verdict::ServerDown)?;
    if draft.flow.flags & flow_flags::TRANSLATE != 0 {
        if packet.hops <= 1 {
            return Err(maps::blame(real.service, Verdict::TtlExpired));
        }
        let ip: &mut F::Ip = frame.at(L3).ok_or(Verdict::Malformed)?;
        ip.translate(&draft.flow.to.src, &draft.flow.to.dst, draft.flow.ip_delta);
    }
    forward::leave::<F>(&frame, packet, &mut draft.flow, real)
}
