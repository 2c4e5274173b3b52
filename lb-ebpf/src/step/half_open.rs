//! TCP connections whose client has not acknowledged yet.

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
        record, service,
        transmit::{UNKNOWN, pack},
    },
};

/// A segment that is not of an established connection: of a half-open one, whose flow is left in
/// the draft, or of none (`UNKNOWN`).
///
/// Not inlined, like the other steps off the fast path: its stack is given back before the next.
#[inline(never)]
pub fn find<F: Family>(packet: &Packet<F::A>) -> u64 {
    if !service::possible::<F>(packet) {
        return Verdict::NotOurs as u64;
    }
    match F::half(&packet.key) {
        Some(flow) if belongs::<F>(packet, flow) => pack(record::draft::<F>(flow)),
        _ => UNKNOWN,
    }
}

/// Follows the state. `false`: the SYN starts anew.
#[inline(always)]
fn belongs<F: Family>(packet: &Packet<F::A>, flow: *mut Flow<F::A>) -> bool {
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
    } else if packet.flags & RST != 0 {
        current.state = state::RESET;
    } else if !reply && current.state == state::OPENING {
        opened::<F>(packet, current, now);
    }
    current.last_seen = now;
    true
}

/// The client's first segment after the SYN.
#[inline(always)]
fn opened<F: Family>(packet: &Packet<F::A>, current: &mut Flow<F::A>, now: u32) {
    if !record::promote::<F>(packet, current, now) {
        maps::set_pressure::<F>(now);
        maps::count(Verdict::FlowTableFull);
    } else if packet.flags & FIN != 0
        && let Some(flow) = F::tcp(&packet.key)
    {
        // SAFETY: the look-up gave the pointer. A FIN in the very segment that establishes.
        unsafe { (*flow).state = tcp::next((*flow).state, Sender::Client, FIN) };
    }
}
