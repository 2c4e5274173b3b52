//! A new connection goes into the tables; an opened one is promoted.

use core::marker::PhantomData;

use aya_ebpf::{bindings::xdp_md, helpers::bpf_get_smp_processor_id};
use lb_common::{
    abi::{
        Addr, Be16, Flow, FlowKey, Hop, PROTO_TCP, Real, Service, Tags, Verdict, flow_flags, mode,
    },
    packet::{checksum::fold, headers::EthHdr, rewrite::Deltas},
    policy::tcp::state,
};

use crate::{
    atomic,
    family::Family,
    iterate::{self, Next, Turn},
    maps::{self, ANY, Draft, NOEXIST},
    step::{opening::Openings, parse::Packet},
};

/// How many ports are tried for a SNAT connection, one after the other from this CPU's cursor. With
/// 95 % of the range in use at random, the chance to find none is 0.95^256, two in a million.
const PORT_TRIES: u32 = 256;

/// The neighbour that a frame came from.
#[inline(always)]
pub fn hop(ctx: *mut xdp_md, eth: &EthHdr, tags: u32) -> Hop {
    // SAFETY: the kernel hands every XDP program a valid context.
    let ifindex = unsafe { (*ctx).ingress_ifindex };
    let interface = maps::interface_slot(ifindex).unwrap_or(0) as u8;
    Hop { interface, tags: Tags::from_bits(tags), mac: eth.src }
}

/// The client's packets come from another neighbour now: both directions learn it.
#[inline(never)]
pub fn new_hop<F: Family>(flow: &mut Flow<F::A>, packet: &Packet<F::A>, eth: &EthHdr) {
    let protocol = packet.protocol;
    let tags = Tags::from_bits(packet.tags);
    flow.hop.mac.put(&eth.src);
    flow.hop.tags = tags;
    let key = flow.to.reversed();
    let pair = if protocol == PROTO_TCP { F::tcp(&key) } else { F::udp(&key) };
    if let Some(pair) = pair {
        // SAFETY: the look-up gave the pointer in this run of the program.
        let pair = unsafe { &mut *pair };
        pair.hop.mac.put(&eth.src);
        pair.hop.tags = tags;
    }
}

/// Composes the flow of a connection to `real` that begins now. For NAT and SNAT the reply
/// direction is in the table when this returns.
#[inline(always)]
pub fn flow<F: Family>(
    packet: &Packet<F::A>,
    service: &Service,
    index: u32,
    real: &Real,
    hop: Hop,
    now: u32,
) -> Result<&'static mut Flow<F::A>, Verdict> {
    let draft = F::draft().ok_or(Verdict::FlowTableFull)?;
    let Draft { flow, reply, back, .. } = draft;
    let outbound = real.mode == mode::OUTBOUND;
    // `outbound::choose` has left the way in the draft.
    begin(flow, index, if outbound { flow.hop } else { hop }, now);
    if real.mode == mode::DR {
        return Ok(flow);
    }
    let key = &packet.key;
    flow.flags = flow_flags::TRANSLATE;
    flow.to.dst.put(&F::A::from_words(&real.address));
    flow.to.dport = if real.port.raw() == 0 { key.dport } else { real.port };
    if outbound {
        flow.flags |= flow_flags::OUTBOUND;
        flow.to.dst = key.dst;
    }
    if real.mode == mode::NAT {
        flow.to.src.put(&key.src);
        flow.to.sport = key.sport;
    } else {
        flow.to.src.put(&F::A::from_words(&service.source));
        flow.to.sport = Be16::new(0); // `Allocation` adds it
    }
    let deltas = Deltas::between(key, &flow.to);
    flow.ip_delta = deltas.ip;
    flow.l4_delta = deltas.l4;
    reverse(back, &flow.to);
    begin(reply, index, hop, now);
    reply.flags = flow.flags | flow_flags::REPLY;
    reverse(&mut reply.to, key);
    let deltas = Deltas::between(back, &reply.to);
    reply.ip_delta = deltas.ip;
    reply.l4_delta = deltas.l4;
    if real.mode == mode::NAT {
        insert_reply::<F>(packet.protocol, back, reply)?;
    } else {
        let base = reply.l4_delta;
        let port = allocate::<F>(packet.protocol, service, base)?;
        flow.to.sport = port;
        flow.l4_delta = fold(flow.l4_delta as u64 + port.raw() as u64);
    }
    Ok(flow)
}

/// Copies a flow to the draft: an entry of a table may be another connection's as soon as it is
/// removed.
#[inline(always)]
pub fn draft<F: Family>(flow: *mut Flow<F::A>) -> Result<&'static mut Draft<F::A>, Verdict> {
    let draft = F::draft().ok_or(Verdict::FlowTableFull)?;
    // `half_open::about` has put it there.
    if flow != &raw mut draft.flow {
        // SAFETY: the look-up gave the pointer in this run of the program.
        copy(&mut draft.flow, unsafe { &*flow });
    }
    Ok(draft)
}

#[inline(always)]
fn copy<A: Addr>(to: &mut Flow<A>, from: &Flow<A>) {
    to.real = from.real;
    to.last_seen = from.last_seen;
    to.created = from.created;
    to.state = from.state;
    to.flags = from.flags;
    to.hop = from.hop;
    to.to.src.put(&from.to.src);
    to.to.dst.put(&from.to.dst);
    to.to.sport = from.to.sport;
    to.to.dport = from.to.dport;
    to.ip_delta = from.ip_delta;
    to.l4_delta = from.l4_delta;
}

/// A flow of a connection that begins now.
#[inline(always)]
pub fn begin<A: Addr>(flow: &mut Flow<A>, real: u32, hop: Hop, now: u32) {
    flow.real = real;
    flow.last_seen = now;
    flow.created = now;
    flow.state = state::OPENING;
    flow.flags = 0;
    flow.hop = hop;
}

#[inline(always)]
fn reverse<A: Addr>(to: &mut FlowKey<A>, from: &FlowKey<A>) {
    to.src.put(&from.dst);
    to.dst.put(&from.src);
    to.sport = from.dport;
    to.dport = from.sport;
}

/// NAT's reply flow. An older connection with the same addresses and ports makes way; a live one
/// of another service does not.
#[inline(always)]
fn insert_reply<F: Family>(
    protocol: u8,
    back: &FlowKey<F::A>,
    reply: &Flow<F::A>,
) -> Result<(), Verdict> {
    let tcp = protocol == PROTO_TCP;
    let other = if tcp { F::tcp(back).or_else(|| F::half(back)) } else { F::udp(back) };
    if let Some(other) = other {
        // SAFETY: the look-up gave the pointer in this run of the program.
        if unsafe { (*other).to != reply.to } {
            return Err(Verdict::FlowConflict);
        }
    }
    let inserted =
        if tcp { F::half_insert(back, reply, ANY) } else { F::udp_insert(back, reply, ANY) };
    inserted.map_err(|_| Verdict::FlowTableFull)
}

/// Finds a SNAT port by inserting the reply flow where there is none. CPUs start apart.
#[inline(always)]
fn allocate<F: Family>(protocol: u8, service: &Service, base: u16) -> Result<Be16, Verdict> {
    let count = service.snat_count as u32;
    if count == 0 {
        return Err(Verdict::SnatPortsExhausted);
    }
    let cursor = maps::snat_cursor().ok_or(Verdict::SnatPortsExhausted)?;
    // SAFETY: the helper takes no arguments; the cursor is this CPU's own cell.
    let (cpu, start) = unsafe { (bpf_get_smp_processor_id(), *cursor) };
    // A stride of an eighth of the range keeps up to eight CPUs out of each other's way.
    let place = start.wrapping_add(cpu.wrapping_mul(count / 8 + 1)) % count;
    let mut search: Allocation<F> = Allocation {
        first: service.snat_first as u32,
        count,
        place,
        turns: 0,
        found: 0,
        tcp: (protocol == PROTO_TCP) as u32,
        base: base as u32,
        family: PhantomData,
    };
    iterate::up_to(count.min(PORT_TRIES), &mut search);
    // SAFETY: as above.
    unsafe { *cursor = start.wrapping_add(search.turns) };
    if search.found == 0 {
        return Err(Verdict::SnatPortsExhausted);
    }
    Ok(Be16::new(search.found as u16))
}

/// The search for a SNAT port; each turn tries one. The flow is in the draft: `bpf_loop` passes
/// a pointer to the stack only.
struct Allocation<F> {
    first: u32,
    count: u32,
    place: u32,
    turns: u32,
    found: u32,
    tcp: u32,
    /// What the rewrite adds to the checksum of a reply to port 0.
    base: u32,
    family: PhantomData<F>,
}

impl<F: Family> Turn for Allocation<F> {
    #[inline(always)]
    fn turn(&mut self) -> Next {
        let Some(Draft { reply, back, .. }) = F::draft() else { return Next::Stop };
        let number = self.first + self.place;
        let port = Be16::new(number as u16);
        self.place += 1;
        if self.place >= self.count {
            self.place = 0;
        }
        self.turns += 1;
        back.dport = port;
        reply.l4_delta = fold(self.base as u64 + !port.raw() as u64);
        let inserted = if self.tcp != 0 {
            if F::tcp(back).is_some() {
                return Next::Again;
            }
            F::half_insert(back, reply, NOEXIST)
        } else {
            F::udp_insert(back, reply, NOEXIST)
        };
        if inserted.is_err() {
            return Next::Again;
        }
        self.found = number;
        Next::Stop
    }
}

/// What became of an opened connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Promotion {
    /// It is in the table of established flows.
    Done,
    /// The table is full.
    Full,
    /// The real server's direction was evicted from the half-open table by a flood.
    Lost,
}

/// Moves the opened connection in the draft into the table of established flows.
#[inline(always)]
pub fn promote<F: Openings>(packet: &Packet<F::A>, draft: &mut Draft<F::A>, now: u32) -> Promotion {
    let Draft { flow, reply, back, .. } = draft;
    let translated = flow.flags & flow_flags::TRANSLATE != 0;
    if translated {
        reverse(back, &flow.to);
        let Some(half) = F::half(back) else { return Promotion::Lost };
        // SAFETY: the look-up gave the pointer in this run of the program.
        copy(reply, unsafe { &*half });
        reply.state = state::ESTABLISHED;
        reply.last_seen = now;
        if F::tcp_insert(back, reply).is_err() {
            return Promotion::Full;
        }
    }
    flow.state = state::ESTABLISHED;
    flow.flags |= flow_flags::COUNTED;
    flow.last_seen = now;
    if F::tcp_insert(&packet.key, flow).is_err() {
        if translated {
            F::tcp_remove(back);
        }
        return Promotion::Full;
    }
    add_active(flow.real, 1);
    if translated {
        add_pending(flow.real, -1);
        F::half_remove(back);
        F::half_remove(&packet.key);
    } else {
        F::end(&packet.key, false);
    }
    Promotion::Done
}

/// Adds to the active count of a real server. The sweeper's recount mends what a race may lose.
#[inline(always)]
pub fn add_active(real: u32, by: i64) {
    if let Some(connections) = maps::connections(real) {
        // SAFETY: a field of the map value that the look-up gave.
        unsafe { atomic::add(&raw mut (*connections).active, by) };
    }
}

/// Adds to the half-open count of a real server.
#[inline(always)]
pub fn add_pending(real: u32, by: i64) {
    if let Some(connections) = maps::connections(real) {
        // SAFETY: a field of the map value that the look-up gave.
        unsafe { atomic::add(&raw mut (*connections).pending, by) };
    }
}
