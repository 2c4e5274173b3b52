//! TCP connections whose client has not acknowledged yet.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Flow, Verdict, flow_flags, real_flags},
    packet::headers::tcp_flags::{ACK, FIN, RST, SYN},
    policy::tcp::{self, Sender, state},
};

use crate::{
    clock,
    family::Family,
    maps,
    step::{
        parse::Packet,
        record::{self, Promotion},
        service,
        transmit::{UNKNOWN, pack},
    },
};

/// A segment that is not of an established connection: of a half-open one, whose flow is left in
/// the draft, or of none (`UNKNOWN`).
///
/// Called through `cold`, like the other steps off the fast path.
#[inline(always)]
pub fn find<F: Family>(_: *mut xdp_md, packet: &Packet<F::A>, _: u32) -> u64 {
    if !service::possible::<F>(packet) {
        return Verdict::NotOurs as u64;
    }
    let Some(flow) = F::half(&packet.key) else { return UNKNOWN };
    match belongs::<F>(packet, flow) {
        Ok(true) => pack(record::draft::<F>(flow)),
        Ok(false) => UNKNOWN,
        Err(verdict) => verdict as u64,
    }
}

/// Follows the state. `false`: the SYN starts anew.
#[inline(always)]
fn belongs<F: Family>(packet: &Packet<F::A>, flow: *mut Flow<F::A>) -> Result<bool, Verdict> {
    let now = clock::now();
    // SAFETY: the look-up gave the pointer in this run of the program.
    let current = unsafe { &mut *flow };
    let reply = current.flags & flow_flags::REPLY != 0;
    if !reply && packet.flags & (SYN | ACK) == SYN {
        let usable = maps::real(current.real).is_some_and(|r| r.flags & real_flags::ACCEPT != 0);
        if current.state != state::OPENING || !usable {
            F::half_remove(&packet.key);
            record::add_pending(current.real, -1);
            return Ok(false);
        }
    } else if packet.flags & RST != 0 {
        current.state = state::RESET;
    } else if !reply && current.state == state::OPENING {
        opened::<F>(packet, current, now)?;
    }
    current.last_seen = now;
    Ok(true)
}

/// The client's first segment after the SYN.
#[inline(always)]
fn opened<F: Family>(
    packet: &Packet<F::A>,
    current: &mut Flow<F::A>,
    now: u32,
) -> Result<(), Verdict> {
    match record::promote::<F>(packet, current, now) {
        Promotion::Done => {
            if packet.flags & FIN != 0
                && let Some(flow) = F::tcp(&packet.key)
            {
                // SAFETY: the look-up gave the pointer. A FIN in the very segment that establishes.
                unsafe { (*flow).state = tcp::next((*flow).state, Sender::Client, FIN) };
            }
            return Ok(());
        }
        Promotion::Full => {
            maps::set_pressure::<F>(now);
            maps::count(Verdict::FlowTableFull);
            // DR lives on in the half-open table, while that has room.
            if current.flags & flow_flags::TRANSLATE == 0 {
                return Ok(());
            }
        }
        Promotion::Lost => {}
    }
    // NAT and SNAT cannot go on without both directions.
    let service = maps::real(current.real).map_or(0, |real| real.service);
    record::add_pending(current.real, -1);
    F::half_remove(&current.to.reversed());
    F::half_remove(&packet.key);
    maps::blame(service, Verdict::FlowTableFull);
    Err(maps::blame(service, Verdict::RefusedReset))
}
