//! TCP connections whose client has not acknowledged yet.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{FilterBit, Flow, FlowKey, Verdict, flow_flags, mode, real_flags},
    packet::headers::tcp_flags::{ACK, FIN, RST, SYN},
    policy::tcp::state,
};

use crate::{
    clock,
    maps::{self, Draft},
    step::{
        established,
        opening::{Found, Openings},
        parse::Packet,
        record::{self, Promotion},
        service,
        transmit::{DRAFTED, SERVICE, UNKNOWN, pack},
    },
};

/// A segment that is not of an established connection: of a half-open one, whose flow is left in
/// the draft, or of none (`UNKNOWN`).
///
/// Called through `cold`, like the other steps off the fast path.
#[inline(always)]
pub fn find<F: Openings>(_: *mut xdp_md, packet: &Packet<F::A>, _: u32) -> u64 {
    let now = clock::now();
    let mut service = 0;
    match look_up::<F>(packet, now, &mut service) {
        Found::Yes => {}
        Found::No => return promoted::<F>(packet, service),
        Found::Busy => return Verdict::FlowTableFull as u64,
    }
    match belongs::<F>(packet, now) {
        Ok(true) => DRAFTED,
        Ok(false) => UNKNOWN,
        Err(verdict) => verdict as u64,
    }
}

/// Finds a packet's flow in the table of its service's mode, and leaves it in the draft. `service`
/// becomes its service's index plus one, if it has one.
#[inline(always)]
fn look_up<F: Openings>(packet: &Packet<F::A>, now: u32, service: &mut u64) -> Found {
    if maps::filter(packet.key.dst) & FilterBit::VIP != 0 {
        let mode = match service::find::<F>(packet) {
            Ok((index, found)) => {
                *service = index as u64 + 1;
                Some(found.mode)
            }
            Err(_) => None, // removed meanwhile, or the source address of SNAT
        };
        if mode.is_none() || mode == Some(mode::DR) {
            let found = F::find(&packet.key, true);
            if found != Found::No || mode.is_some() {
                return found;
            }
        }
    }
    let Some(flow) = F::half(&packet.key) else { return Found::No };
    if record::draft::<F>(flow).is_err() {
        return Found::No; // never: the map has this entry
    }
    // SAFETY: the look-up gave the pointer in this run of the program. Should the entry be another
    // connection's by now, it is not older than this packet.
    unsafe { (*flow).last_seen = now };
    Found::Yes
}

/// The flow of a key that is half-open; for packets that are about a connection.
#[inline(always)]
pub fn about<F: Openings>(key: &FlowKey<F::A>) -> Option<*mut Flow<F::A>> {
    if let Some(flow) = F::half(key) {
        return Some(flow);
    }
    if F::find(key, false) != Found::Yes {
        return None;
    }
    F::draft().map(|draft| &raw mut draft.flow)
}

/// In neither table. Another CPU may have promoted the connection between the two look-ups; a SYN
/// is spared the third.
#[inline(always)]
fn promoted<F: Openings>(packet: &Packet<F::A>, service: u64) -> u64 {
    if packet.flags & SYN == 0
        && let Some(flow) = F::tcp(&packet.key)
    {
        return pack(record::draft::<F>(flow).map(drop));
    }
    UNKNOWN | service << SERVICE
}

/// Follows the state of the flow in the draft. `false`: the SYN starts anew.
#[inline(always)]
fn belongs<F: Openings>(packet: &Packet<F::A>, now: u32) -> Result<bool, Verdict> {
    let draft = F::draft().ok_or(Verdict::FlowTableFull)?;
    let flow = &draft.flow;
    let reply = flow.flags & flow_flags::REPLY != 0;
    if !reply && packet.flags & (SYN | ACK) == SYN {
        let usable = maps::real(flow.real).is_some_and(|r| r.flags & real_flags::ACCEPT != 0);
        if flow.state != state::OPENING || !usable || !whole::<F>(packet, flow) {
            forget::<F>(packet, flow);
            return Ok(false);
        }
    }
    if packet.flags & RST != 0 {
        if flow.flags & flow_flags::TRANSLATE == 0 {
            F::end(&packet.key, true);
            return Ok(true);
        }
        if !reply && flow.state == state::OPENING {
            record::add_pending(flow.real, -1);
        }
        if let Some(entry) = F::half(&packet.key) {
            // SAFETY: the look-up gave the pointer in this run of the program.
            unsafe { (*entry).state = state::RESET };
        }
    } else if !reply && flow.state == state::OPENING && packet.flags & SYN == 0 {
        opened::<F>(packet, draft, now)?;
    }
    Ok(true)
}

/// Whether the real server's direction is still this connection's: a flood may have taken its entry,
/// or its SNAT port.
#[inline(always)]
fn whole<F: Openings>(packet: &Packet<F::A>, flow: &Flow<F::A>) -> bool {
    if flow.flags & flow_flags::TRANSLATE == 0 {
        return true;
    }
    let Some(reply) = F::half(&flow.to.reversed()) else { return false };
    // SAFETY: the look-up gave the pointer in this run of the program.
    unsafe { (*reply).to == packet.key.reversed() }
}

/// Takes both directions out of the table.
#[inline(always)]
fn forget<F: Openings>(packet: &Packet<F::A>, flow: &Flow<F::A>) {
    if flow.flags & flow_flags::TRANSLATE == 0 {
        return F::end(&packet.key, false);
    }
    if flow.state == state::OPENING {
        record::add_pending(flow.real, -1);
    }
    if whole::<F>(packet, flow) {
        F::half_remove(&flow.to.reversed());
    }
    F::half_remove(&packet.key);
}

/// The client's first segment after the SYN.
#[inline(always)]
fn opened<F: Openings>(
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
