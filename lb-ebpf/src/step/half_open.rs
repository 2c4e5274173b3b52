//! TCP connections whose client has not acknowledged yet.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Flow, Verdict, flow_flags, real_flags},
    packet::headers::tcp_flags::{ACK, FIN, RST, SYN},
    policy::tcp::state,
};

use crate::{
    clock,
    family::Family,
    maps::{self, Draft},
    step::{
        established,
        parse::Packet,
        record::{self, Promotion},
        transmit::{DRAFTED, UNKNOWN, pack},
    },
};

/// A segment that is not of an established connection: of a half-open one, whose flow is left in
/// the draft, or of none (`UNKNOWN`).
///
/// Called through `cold`, like the other steps off the fast path.
#[inline(always)]
pub fn find<F: Family>(_: *mut xdp_md, packet: &Packet<F::A>, _: u32) -> u64 {
    let Some(flow) = F::half(&packet.key) else { return promoted::<F>(packet) };
    match belongs::<F>(packet, flow) {
        Ok(true) => DRAFTED,
        Ok(false) => UNKNOWN,
        Err(verdict) => verdict as u64,
    }
}

/// In neither table. Another CPU may have promoted the connection between the two look-ups; a SYN
/// is spared the third.
#[inline(always)]
fn promoted<F: Family>(packet: &Packet<F::A>) -> u64 {
    if packet.flags & SYN != 0 {
        return UNKNOWN;
    }
    match F::tcp(&packet.key) {
        Some(flow) => pack(record::draft::<F>(flow).map(drop)),
        None => UNKNOWN,
    }
}

/// Follows the state, and leaves the flow in the draft. `false`: the SYN starts anew.
#[inline(always)]
fn belongs<F: Family>(packet: &Packet<F::A>, entry: *mut Flow<F::A>) -> Result<bool, Verdict> {
    let now = clock::now();
    let draft = record::draft::<F>(entry)?;
    let flow = &draft.flow;
    let reply = flow.flags & flow_flags::REPLY != 0;
    if !reply && packet.flags & (SYN | ACK) == SYN {
        let usable = maps::real(flow.real).is_some_and(|r| r.flags & real_flags::ACCEPT != 0);
        if flow.state != state::OPENING || !usable {
            forget::<F>(packet, flow);
            return Ok(false);
        }
    }
    // SAFETY: the look-up gave the pointer in this run of the program; nothing is removed yet.
    let entry = unsafe { &mut *entry };
    entry.last_seen = now;
    if packet.flags & RST != 0 {
        if !reply && flow.state == state::OPENING {
            record::add_pending(flow.real, -1);
        }
        entry.state = state::RESET;
    } else if !reply && flow.state == state::OPENING && packet.flags & SYN == 0 {
        opened::<F>(packet, draft, now)?;
    }
    Ok(true)
}

/// Takes both directions out of the table.
#[inline(always)]
fn forget<F: Family>(packet: &Packet<F::A>, flow: &Flow<F::A>) {
    if flow.state == state::OPENING {
        record::add_pending(flow.real, -1);
    }
    if flow.flags & flow_flags::TRANSLATE != 0 {
        F::half_remove(&flow.to.reversed());
    }
    F::half_remove(&packet.key);
}

/// The client's first segment after the SYN.
#[inline(always)]
fn opened<F: Family>(
    packet: &Packet<F::A>,
    draft: &mut Draft<F::A>,
    now: u32,
) -> Result<(), Verdict> {
    let why = match record::promote::<F>(packet, draft, now) {
        Promotion::Done => {
            if packet.flags & FIN != 0
                && let Some(flow) = F::tcp(&packet.key)
            {
                established::control::<F>(packet, flow, now);
            }
            return Ok(());
        }
        Promotion::Full => {
            maps::set_pressure::<F>(now);
            maps::count(Verdict::FlowTableFull);
            // DR lives on in the half-open table, while that has room.
            if draft.flow.flags & flow_flags::TRANSLATE == 0 {
                return Ok(());
            }
            Verdict::FlowTableFull
        }
        Promotion::Lost => Verdict::NoFlowReset,
    };
    // NAT and SNAT cannot go on without both directions.
    let service = maps::real(draft.flow.real).map_or(0, |real| real.service);
    draft.flow.state = state::OPENING;
    forget::<F>(packet, &draft.flow);
    maps::blame(service, why);
    Err(maps::blame(service, Verdict::RefusedReset))
}
