//! A new connection goes into the tables; an opened one is promoted.

use core::marker::PhantomData;

use aya_ebpf::bindings::xdp_md;
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
    maps::{self, ANY, Draft, NOEXIST, PortSearch},
    step::{opening::Openings, parse::Packet},
};

/// How many ports are tried for a SNAT connection in turn, and how many in all: those after these are
/// taken from all over the range, since connections that were opened together lie together. With
/// 95 % of the range in use at random, the chance to find none is 0.95^256, two in a million.
const IN_TURN: u32 = 128;
const PORT_TRIES: u32 = IN_TURN + 256;

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
        insert_reply::<F>(packet.protocol, &mut flow.to, back, reply)?;
    } else {
        let base = reply.l4_delta;
        let port = allocate::<F>(packet.protocol, service, index, base)?;
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

/// NAT's reply flow. An older connection with the same addresses and ports makes way, and one of
/// another service that has ended; a live one of another service does not.
///
/// `to` is the way of the client's direction; on an error it is of no more use.
#[inline(always)]
fn insert_reply<F: Family>(
    protocol: u8,
    to: &mut FlowKey<F::A>,
    back: &FlowKey<F::A>,
    reply: &Flow<F::A>,
) -> Result<(), Verdict> {
    let tcp = protocol == PROTO_TCP;
    let other = if tcp { F::tcp(back).or_else(|| F::half(back)) } else { F::udp(back) };
    if let Some(other) = other {
        // SAFETY: the look-up gave the pointer in this run of the program.
        let other = unsafe { &*other };
        if other.to != reply.to {
            // Its client is this one: only the VIP differs. The stack has no room for another key.
            to.dst.put(&other.to.src);
            to.dport = other.to.sport;
            if !tcp || is_live::<F>(other, to) {
                return Err(Verdict::FlowConflict);
            }
            F::half_remove(to);
            F::tcp_remove(to);
            F::tcp_remove(back);
            to.dst.put(&back.src);
            to.dport = back.sport;
        }
    }
    let inserted =
        if tcp { F::half_insert(back, reply, ANY) } else { F::udp_insert(back, reply, ANY) };
    inserted.map_err(|_| Verdict::FlowTableFull)
}

/// Whether a connection, of which this is the reply direction, still goes on. Of a half-open one
/// either direction may have noted the RST, and a flood may have taken the client's.
#[inline(always)]
fn is_live<F: Family>(reply: &Flow<F::A>, forward: &FlowKey<F::A>) -> bool {
    if reply.state != state::OPENING {
        return reply.state == state::ESTABLISHED;
    }
    // SAFETY: the look-up gave the pointer in this run of the program.
    F::half(forward).is_some_and(|half| unsafe { (*half).state == state::OPENING })
}

/// How many half-open connections in the way show that a flood holds the range.
const CROWD: u32 = 8;

/// Finds a SNAT port by inserting the reply flow where there is none. Ports towards a real server
/// are given out in turn, to all CPUs.
///
/// A flood of SYNs would hold every port until they expire. Where nothing but half-open connections
/// is in the way, the one that began first makes way: a client that exists acknowledges long before
/// the whole range has gone by, and what is established is never touched.
#[inline(always)]
fn allocate<F: Family>(
    protocol: u8,
    service: &Service,
    real: u32,
    base: u16,
) -> Result<Be16, Verdict> {
    let count = service.snat_count as u32;
    if count == 0 {
        return Err(Verdict::SnatPortsExhausted);
    }
    let cursor = maps::snat_cursor(real).ok_or(Verdict::SnatPortsExhausted)?;
    // SAFETY: the map value that the look-up gave.
    let place = (unsafe { atomic::next(cursor) } as u32) % count;
    let search = &mut F::draft().ok_or(Verdict::SnatPortsExhausted)?.ports;
    *search = PortSearch {
        first: service.snat_first as u32,
        count,
        place,
        turns: 0,
        last: count.min(PORT_TRIES),
        found: 0,
        crowd: 0,
        oldest: 0,
        met: 0,
        tcp: (protocol == PROTO_TCP) as u32,
        base: base as u32,
    };
    iterate::up_to(search.last, &mut Allocation::<F>(PhantomData));
    let search = &F::draft().ok_or(Verdict::SnatPortsExhausted)?.ports;
    // Others need not try what was passed over.
    // SAFETY: as above.
    unsafe { atomic::add(cursor, i64::from(search.turns.min(IN_TURN)) - 1) };
    if search.found == 0 {
        return Err(Verdict::SnatPortsExhausted);
    }
    Ok(Be16::new(search.found as u16))
}

/// The search for a SNAT port; each turn tries one. All that it needs is in the draft.
struct Allocation<F>(PhantomData<F>);

impl<F: Family> Turn for Allocation<F> {
    #[inline(always)]
    fn turn(&mut self) -> Next {
        let Some(draft) = F::draft() else { return Next::Stop };
        let search = &mut draft.ports;
        let number = search.first + search.place;
        search.turns += 1;
        search.place += if search.turns < IN_TURN { 1 } else { search.count * 5 / 8 };
        if search.place >= search.count {
            search.place -= search.count;
        }
        aim(draft, number);
        if take::<F>(draft, number) {
            draft.ports.found = number;
            return Next::Stop;
        }
        let search = &draft.ports;
        let crowded = search.crowd >= CROWD || search.turns >= search.last;
        if search.oldest == 0 || !crowded {
            return Next::Again;
        }
        // The oldest half-open connection makes way. `half_open` notices when its client comes back.
        let oldest = search.oldest;
        aim(draft, oldest);
        if F::half_insert(&draft.back, &draft.reply, ANY).is_ok() {
            draft.ports.found = oldest;
            draft.ports.turns = draft.ports.met; // the next one is the next to make way
        }
        Next::Stop
    }
}

/// Puts the port into the reply flow and its key.
#[inline(always)]
fn aim<A: Addr>(draft: &mut Draft<A>, number: u32) {
    let port = Be16::new(number as u16);
    draft.back.dport = port;
    draft.reply.l4_delta = fold(draft.ports.base as u64 + !port.raw() as u64);
}

/// Whether the port was free and is taken now.
#[inline(always)]
fn take<F: Family>(draft: &mut Draft<F::A>, number: u32) -> bool {
    let Draft { reply, back, ports, .. } = draft;
    if ports.tcp == 0 {
        return F::udp_insert(back, reply, NOEXIST).is_ok();
    }
    if F::tcp(back).is_some() {
        return false;
    }
    // An insertion that fails takes an entry from somebody first, when the table is full.
    let busy = ports.oldest != 0 && F::half(back).is_some();
    if !busy && F::half_insert(back, reply, NOEXIST).is_ok() {
        return true;
    }
    if ports.oldest == 0 {
        ports.oldest = number;
        ports.met = ports.turns;
    }
    ports.crowd += 1;
    false
}

/// What became of an opened connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Promotion {
    /// It is in the table of established flows.
    Done,
    /// The table is full.
    Full,
    /// The real server's direction is gone from the half-open table, or its SNAT port to another
    /// connection: a flood.
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
        if reply.to != packet.key.reversed() {
            return Promotion::Lost;
        }
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
