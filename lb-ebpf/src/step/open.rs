//! New connections: choose a server, record the flow.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{FilterBit, Flow, Hop, PROTO_TCP, Service, Verdict, flow_flags, mode},
    packet::headers::{
        EthHdr,
        tcp_flags::{ACK, FIN, RST, SYN},
    },
};

use crate::{
    at::Frame,
    clock,
    family::Family,
    maps::{self, ANY},
    step::{
        opening::Openings,
        parse::Packet,
        record, select, service,
        transmit::{CHOSEN, DIRECT, DRAFTED, OUTBOUND, pack},
    },
};

/// The real server for a packet of no known connection: `CHOSEN` with its index, or a verdict, or
/// `OUTBOUND` for one to no VIP from an address that may have a rule.
///
/// `service` is the service's index plus one, or 0 where it is not known. Called through `cold`, like
/// the other steps off the fast path.
#[inline(always)]
pub fn choose<F: Family>(_: *mut xdp_md, packet: &Packet<F::A>, service: u32) -> u64 {
    match chosen::<F>(packet, service) {
        Ok(real) if packet.protocol == PROTO_TCP && direct(real) => CHOSEN | DIRECT | real as u64,
        Ok(real) => CHOSEN | real as u64,
        Err(Verdict::NotOurs) if maps::filter(packet.key.src) & FilterBit::REAL != 0 => OUTBOUND,
        Err(verdict) => verdict as u64,
    }
}

#[inline(always)]
fn direct(real: u32) -> bool {
    maps::real(real).is_some_and(|real| real.mode == mode::DR)
}

#[inline(always)]
fn chosen<F: Family>(packet: &Packet<F::A>, service: u32) -> Result<u32, Verdict> {
    if packet.protocol != PROTO_TCP
        && let Some(flow) = F::udp(&packet.key)
    {
        // SAFETY: the look-up gave the pointer in this run of the program.
        let flow = unsafe { &*flow };
        if flow.flags & flow_flags::REPLY != 0 {
            return Err(Verdict::ServerDown); // or expired: untranslated it is nobody's
        }
    }
    let (index, service) = match service.checked_sub(1) {
        Some(index) => (index, maps::service(index).ok_or(Verdict::ToKernel)?),
        None => service::find::<F>(packet)?,
    };
    let now = clock::now();
    let tcp = packet.protocol == PROTO_TCP;
    let opens = packet.flags & (SYN | ACK | RST | FIN) == SYN;
    if tcp && maps::under_pressure::<F>(now) {
        return pressed::<F>(packet, index, service, opens);
    }
    if tcp && !opens {
        return Err(nobodys(packet, index));
    }
    select::choose::<F>(index, service, packet.key.src, now)
        .map_err(|_| refused(index, tcp, Verdict::NoUsableServer))
}

/// A segment to a service that belongs to no connection. A RST is not answered.
#[inline(always)]
fn nobodys<A>(packet: &Packet<A>, service: u32) -> Verdict {
    let rst = packet.flags & RST != 0;
    maps::blame(service, if rst { Verdict::NoFlow } else { Verdict::NoFlowReset })
}

/// TCP while the table of established flows is full. DR goes on without state, by source hash: a
/// connection that began so keeps its server. NAT and SNAT cannot, and refuse.
#[inline(always)]
fn pressed<F: Family>(
    packet: &Packet<F::A>,
    index: u32,
    service: &Service,
    opens: bool,
) -> Result<u32, Verdict> {
    if service.mode != mode::DR {
        if opens {
            return Err(refused(index, true, Verdict::FlowTableFull));
        }
        return Err(nobodys(packet, index));
    }
    let chosen = select::stateless::<F>(service, packet.key.src)
        .ok_or_else(|| refused(index, true, Verdict::NoUsableServer))?;
    if !opens {
        maps::count(maps::blame(index, Verdict::Stateless));
    }
    Ok(chosen)
}

/// Records the new flow, and leaves it in the draft.
#[inline(always)]
pub fn record<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>, chosen: u32) -> u64 {
    pack(recorded::<F>(ctx, packet, chosen))
}

#[inline(always)]
fn recorded<F: Family>(
    ctx: *mut xdp_md,
    packet: &Packet<F::A>,
    chosen: u32,
) -> Result<(), Verdict> {
    let now = clock::now();
    let tcp = packet.protocol == PROTO_TCP;
    let real = maps::real(chosen).ok_or(Verdict::NoUsableServer)?;
    let service: &Service = maps::service(real.service).ok_or(Verdict::NoUsableServer)?;
    if !tcp {
        forget_udp::<F>(packet);
    }
    let eth: &mut EthHdr = Frame::new(ctx).at(0).ok_or(Verdict::Malformed)?;
    let hop = record::hop(ctx, eth, packet.tags);
    let flow = record::flow::<F>(packet, service, chosen, real, hop, now)
        .map_err(|why| refused(real.service, tcp, why))?;
    if insert::<F>(packet, flow).is_err() {
        return Err(refused(real.service, tcp, Verdict::FlowTableFull));
    }
    maps::count_connection(chosen);
    Ok(())
}

/// The same for TCP in DR mode: a step of its own, with less to do and less on the stack.
#[inline(always)]
pub fn record_direct<F: Openings>(_: *mut xdp_md, packet: &Packet<F::A>, chosen: u32) -> u64 {
    let Some(draft) = F::draft() else { return Verdict::FlowTableFull as u64 };
    record::begin(&mut draft.flow, chosen, Hop::default(), clock::now()); // no replies come by
    if packet.flags & SYN == 0 {
        return DRAFTED; // without state: `pressed`
    }
    if !F::insert(&packet.key, chosen) {
        let service = maps::real(chosen).map_or(0, |real| real.service);
        // Not told: the bucket is free again when the client repeats its SYN.
        return maps::blame(service, Verdict::FlowTableFull) as u64;
    }
    maps::count_connection(chosen);
    DRAFTED
}

/// Into the half-open table, or that of UDP; and the live counts.
#[inline(always)]
fn insert<F: Family>(packet: &Packet<F::A>, flow: &mut Flow<F::A>) -> Result<(), i32> {
    if packet.protocol == PROTO_TCP {
        F::half_insert(&packet.key, flow, ANY)?;
        record::add_pending(flow.real, 1);
        return Ok(());
    }
    flow.flags |= flow_flags::COUNTED;
    F::udp_insert(&packet.key, flow, ANY)?;
    record::add_active(flow.real, 1);
    Ok(())
}

/// An expired UDP flow, or one whose server has failed, makes way.
#[inline(always)]
fn forget_udp<F: Family>(packet: &Packet<F::A>) {
    if let Some(old) = F::udp(&packet.key) {
        // SAFETY: the look-up gave the pointer in this run of the program.
        let old = unsafe { &*old };
        let real = old.real;
        if old.flags & flow_flags::TRANSLATE != 0 {
            F::udp_remove(&old.to.reversed());
        }
        F::udp_remove(&packet.key);
        record::add_active(real, -1);
    }
}

/// A TCP connection that cannot be taken is refused with a RST, a datagram with ICMP port
/// unreachable, and the reason is counted beside that.
#[inline(always)]
pub fn refused(service: u32, tcp: bool, why: Verdict) -> Verdict {
    let why = maps::blame(service, why);
    if why.resets() {
        if tcp {
            return why;
        }
        // Its count is of RSTs, which no datagram gets: the service's drops have the reason.
    } else {
        maps::count(why);
    }
    let answer = if tcp { Verdict::RefusedReset } else { Verdict::RefusedUnreachable };
    maps::blame(service, answer)
}
