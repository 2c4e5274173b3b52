//! A packet whose flow is in the table: note that it was seen, follow the TCP state.

use lb_common::{
    abi::{Flow, Real, flow_flags, real_flags},
    packet::headers::tcp_flags::{ACK, FIN, RST, SYN},
    policy::{
        clock::expired,
        tcp::{self, Sender, state},
    },
};

use crate::{
    clock,
    family::Family,
    maps,
    step::{parse::Packet, record},
};

/// Whether the packet belongs to this flow. `false`: it opens a new connection on the old one's
/// addresses and ports; the old one is gone from the table.
#[inline(always)]
pub fn tcp<F: Family>(packet: &Packet<F::A>, flow: *mut Flow<F::A>) -> bool {
    let now = clock::now();
    if packet.flags & (SYN | FIN | RST) != 0 && !control::<F>(packet, flow, now) {
        return false;
    }
    // SAFETY: the look-up gave the pointer in this run of the program. Another CPU may write the
    // same second; both write the same value.
    unsafe {
        if (*flow).last_seen != now {
            (*flow).last_seen = now;
        }
    }
    true
}

/// The real server of a UDP flow that is still good: not expired, and its server not failed. A
/// datagram has no connection that could be reset: it goes to another server.
#[inline(always)]
pub fn udp<F: Family>(flow: *mut Flow<F::A>) -> Option<&'static Real> {
    let now = clock::now();
    // SAFETY: as in `tcp`.
    let flow = unsafe { &mut *flow };
    let real = maps::real(flow.real)?;
    if real.flags & real_flags::RESET != 0 {
        return None;
    }
    if flow.last_seen != now {
        if expired(now, flow.last_seen, maps::service(real.service)?.udp_idle) {
            return None;
        }
        flow.last_seen = now;
    }
    Some(real)
}

/// SYN, FIN and RST. `false` as for [`tcp`]. Not inlined: three segments of a connection, not the
/// other million.
#[inline(never)]
pub fn control<F: Family>(packet: &Packet<F::A>, flow: *mut Flow<F::A>, now: u32) -> bool {
    // SAFETY: as in `tcp`.
    let current = unsafe { &mut *flow };
    let reply = current.flags & flow_flags::REPLY != 0;
    if packet.flags & (SYN | ACK) == SYN && !reply && starts_anew::<F>(current, now) {
        forget::<F>(packet, current);
        return false;
    }
    let sender = if reply { Sender::Server } else { Sender::Client };
    advance(current, sender, packet.flags);
    // The two directions of a translated connection close together.
    if current.flags & flow_flags::TRANSLATE != 0
        && let Some(pair) = F::tcp(&current.to.reversed())
    {
        // SAFETY: as in `tcp`.
        advance(unsafe { &mut *pair }, sender, packet.flags);
    }
    true
}

/// Whether a SYN on this flow's addresses and ports is a new connection: the old one is closing,
/// expired, or its server takes no new ones.
#[inline(always)]
fn starts_anew<F: Family>(flow: &Flow<F::A>, now: u32) -> bool {
    if flow.state != state::ESTABLISHED {
        return true;
    }
    let Some(real) = maps::real(flow.real) else { return true };
    if real.flags & real_flags::ACCEPT == 0 {
        return true;
    }
    let Some(service) = maps::service(real.service) else { return true };
    // The server's side may be fresher, but a client that starts anew has no use for it.
    expired(now, flow.last_seen, service.idle)
}

/// The real server is gone: the connection counts no longer, and both directions expire soon. They
/// stay for now, so that the other side is told as well. Not inlined: once for each side.
#[inline(never)]
pub fn give_up<F: Family>(flow: &mut Flow<F::A>) {
    if flow.state == state::RESET {
        return;
    }
    advance(flow, Sender::Client, RST);
    if flow.flags & flow_flags::TRANSLATE != 0
        && let Some(pair) = F::tcp(&flow.to.reversed())
    {
        // SAFETY: as in `tcp`.
        advance(unsafe { &mut *pair }, Sender::Client, RST);
    }
}

/// Takes both directions out of the table.
#[inline(always)]
fn forget<F: Family>(packet: &Packet<F::A>, flow: &mut Flow<F::A>) {
    if flow.flags & flow_flags::TRANSLATE != 0 {
        let pair = flow.to.reversed();
        F::tcp_remove(&pair);
    }
    leave(flow);
    F::tcp_remove(&packet.key);
}

#[inline(always)]
fn advance<A: Copy>(flow: &mut Flow<A>, sender: Sender, flags: u8) {
    let next = tcp::next(flow.state, sender, flags);
    if next != flow.state {
        if !tcp::is_active(next) {
            leave(flow);
        }
        flow.state = next;
    }
}

/// The flow no longer counts as active.
#[inline(always)]
fn leave<A: Copy>(flow: &mut Flow<A>) {
    if flow.flags & flow_flags::COUNTED != 0 {
        flow.flags &= !flow_flags::COUNTED;
        record::add_active(flow.real, -1);
    }
}
