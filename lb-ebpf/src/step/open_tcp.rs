//! TCP that is not established: half-open connections, new ones, and segments that belong to none.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Flow, Service, Verdict, flow_flags, real_flags},
    packet::headers::{
        EthHdr,
        tcp_flags::{ACK, FIN, RST, SYN},
    },
    policy::tcp::{self, Sender, state},
};

use crate::{
    at::Frame,
    clock,
    family::Family,
    maps::{self, ANY},
    step::{parse::Packet, record, select, service, transmit::pack},
};

/// Everything but the established table: leaves the packet's flow in the draft. Not inlined: off
/// the fast path, and its stack is given back before the packet is forwarded.
#[inline(never)]
pub fn cold<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> u64 {
    pack(run::<F>(ctx, packet))
}

#[inline(always)]
fn run<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> Result<(), Verdict> {
    if !service::possible::<F>(packet) {
        return Err(Verdict::NotOurs);
    }
    if let Some(flow) = F::half(&packet.key)
        && half_open::<F>(packet, flow)
    {
        return record::draft::<F>(flow);
    }
    let (index, service) = service::find::<F>(packet)?;
    if packet.flags & (SYN | ACK | RST | FIN) != SYN {
        return Err(stray(packet, index));
    }
    open::<F>(ctx, packet, index, service)
}

/// A packet of a half-open connection. `false`: the SYN starts anew.
#[inline(always)]
fn half_open<F: Family>(packet: &Packet<F::A>, flow: *mut Flow<F::A>) -> bool {
    let now = clock::now();
    // SAFETY: the look-up gave the pointer in this run of the program.
    let current = unsafe { &mut *flow };
    let reply = current.flags & flow_flags::REPLY != 0;
    if !reply && packet.flags & (SYN | ACK) == SYN {
        let usable = maps::real(current.real).is_some_and(|r| r.flags & real_flags::ACCEPT != 0);
        if current.state != state::OPENING || !usable {
            F::half_remove(&packet.key);
            record::add_pending(current.real, -1);
            return false;
        }
    } else if !reply && packet.flags & RST == 0 && current.state == state::OPENING {
        if !record::promote::<F>(packet, current, now) {
            maps::set_pressure::<F>(now);
            maps::count(Verdict::FlowTableFull);
        } else if packet.flags & FIN != 0
            && let Some(flow) = F::tcp(&packet.key)
        {
            // SAFETY: as above. A FIN in the very segment that establishes.
            unsafe { (*flow).state = tcp::next((*flow).state, Sender::Client, FIN) };
        }
    } else if packet.flags & RST != 0 {
        current.state = state::RESET;
    }
    current.last_seen = now;
    true
}

/// A segment that neither opens a connection nor belongs to one.
#[inline(always)]
fn stray<A>(packet: &Packet<A>, index: u32) -> Verdict {
    let rst = packet.flags & RST != 0;
    maps::blame(index, if rst { Verdict::NoFlow } else { Verdict::NoFlowReset })
}

/// A SYN: choose, record.
#[inline(always)]
fn open<F: Family>(
    ctx: *mut xdp_md,
    packet: &Packet<F::A>,
    index: u32,
    service: &Service,
) -> Result<(), Verdict> {
    let now = clock::now();
    let chosen = select::choose::<F>(index, service, packet.key.src, now)
        .map_err(|_| maps::blame(index, Verdict::RefusedReset))?;
    let real = maps::real(chosen).ok_or(Verdict::NoUsableServer)?;
    let eth: &mut EthHdr = Frame::new(ctx).at(0).ok_or(Verdict::Malformed)?;
    let hop = record::hop(ctx, eth);
    let flow = record::flow::<F>(packet, service, chosen, real, hop, now)
        .map_err(|why| refused(index, why))?;
    if F::half_insert(&packet.key, flow, ANY).is_err() {
        return Err(refused(index, Verdict::FlowTableFull));
    }
    record::add_pending(chosen, 1);
    maps::count_connection(chosen);
    Ok(())
}

/// A connection that cannot be recorded is refused with a RST; the reason is counted beside it.
#[inline(always)]
fn refused(index: u32, why: Verdict) -> Verdict {
    if matches!(why, Verdict::FlowConflict) {
        return maps::blame(index, why);
    }
    maps::count(maps::blame(index, why));
    maps::blame(index, Verdict::RefusedReset)
}
