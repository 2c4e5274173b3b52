//! The first datagram of a UDP flow.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Verdict, flow_flags},
    packet::headers::EthHdr,
};

use crate::{
    at::Frame,
    atomic, clock,
    family::Family,
    maps::{self, ANY},
    step::{parse::Packet, record, select, service, transmit::pack},
};

/// Leaves the packet's flow in the draft. Not inlined: off the fast path, and its stack is given
/// back before the packet is forwarded.
#[inline(never)]
pub fn cold<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> u64 {
    pack(run::<F>(ctx, packet))
}

#[inline(always)]
fn run<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> Result<(), Verdict> {
    if !service::possible::<F>(packet) {
        return Err(Verdict::NotOurs);
    }
    let (index, service) = service::find::<F>(packet)?;
    let now = clock::now();
    if let Some(old) = F::udp(&packet.key) {
        // SAFETY: the look-up gave the pointer in this run of the program.
        let old = unsafe { &*old };
        if old.flags & flow_flags::TRANSLATE != 0 {
            F::udp_remove(&old.to.reversed());
        }
        F::udp_remove(&packet.key);
        super::established::subtract_active(old.real);
    }
    let chosen = select::choose::<F>(index, service, packet.key.src, now)
        .map_err(|verdict| maps::blame(index, verdict))?;
    let real = maps::real(chosen).ok_or(Verdict::NoUsableServer)?;
    let frame = Frame::new(ctx);
    let eth: &mut EthHdr = frame.at(0).ok_or(Verdict::Malformed)?;
    let hop = record::hop(ctx, eth);
    let flow = record::flow::<F>(packet, service, chosen, real, hop, now)
        .map_err(|verdict| maps::blame(index, verdict))?;
    flow.flags |= flow_flags::COUNTED;
    if F::udp_insert(&packet.key, flow, ANY).is_err() {
        return Err(maps::blame(index, Verdict::FlowTableFull));
    }
    if let Some(connections) = maps::connections(chosen) {
        // SAFETY: a field of the map value that the look-up gave.
        unsafe { atomic::add(&raw mut (*connections).active, 1) };
    }
    maps::count_connection(chosen);
    Ok(())
}
