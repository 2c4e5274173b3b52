//! Outbound SNAT: connections that real servers open themselves, to ports that the operator named,
//! leave with an address of medlb's. Their way out is the kernel's routing table's; replies go back
//! to where the opening packet came from.

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNSUPP_LWT, xdp_md,
    },
    helpers::generated::bpf_fib_lookup,
};
use lb_common::{
    abi::{Addr, Be16, Be32, Hop, Mac, PROTO_TCP, Tags, Verdict, mode, real_flags},
    packet::headers::tcp_flags::{ACK, FIN, RST, SYN},
};

use crate::{
    clock,
    family::Family,
    maps,
    step::{open, parse::Packet, service, transmit::CHOSEN},
};

/// Address families (include/linux/socket.h).
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A packet to no VIP: `CHOSEN` with the index of the record that stands for the real server which
/// opens this connection, and its way out in the draft's flow; or a verdict. Other packets of the
/// server are left alone: only an opening segment tells its own connections from those that others
/// opened to it.
///
/// Called through `cold`: not from `open`, for whose stack the routing query would be too much.
#[inline(always)]
pub fn choose<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>, _: u32) -> u64 {
    let Some((index, service)) = found::<F>(packet) else { return Verdict::NotOurs as u64 };
    let why = match routed::<F>(ctx, packet) {
        Ok(()) => return CHOSEN | index as u64,
        Err(why) => why,
    };
    (match why {
        Verdict::NotOurs => why,
        // The sender tries again, and the neighbour is known then.
        Verdict::NeighbourUnknown => maps::blame(service, why),
        _ => open::refused(service, packet.protocol == PROTO_TCP, why),
    }) as u64
}

/// The record's index, and its service's.
#[inline(always)]
fn found<F: Family>(packet: &Packet<F::A>) -> Option<(u32, u32)> {
    let opens = packet.flags & (SYN | ACK | RST | FIN) == SYN;
    if packet.protocol == PROTO_TCP && !opens {
        return None;
    }
    let run = F::outbound(&packet.key.src)?;
    // SAFETY: the look-up gave the pointer; the value is copied at once.
    let index = service::search(unsafe { *run }, packet)?;
    let real = maps::real(index)?;
    let usable = real.mode == mode::OUTBOUND && real.flags & real_flags::ACCEPT != 0;
    usable.then_some((index, real.service))
}

/// `struct bpf_fib_lookup` (include/uapi/linux/bpf.h), without its unions.
#[repr(C)]
struct Query {
    family: u8,
    protocol: u8,
    sport: Be16,
    dport: Be16,
    /// 0: not compared with the route's MTU.
    total_length: u16,
    /// Ingress; egress afterwards.
    ifindex: u32,
    tos: u32,
    src: [Be32; 4],
    /// Destination; the next hop's address afterwards.
    dst: [Be32; 4],
    vlan: u32,
    src_mac: Mac,
    dst_mac: Mac,
}

const _: () = assert!(size_of::<Query>() == 64);

/// Leaves the way to the packet's destination in the draft's flow. `NotOurs`: the kernel does not
/// forward it either, so that it cannot leave with the wrong source; it is the host's own, or the
/// kernel answers with an error.
#[inline(always)]
fn routed<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> Result<(), Verdict> {
    let family = if F::V6 { AF_INET6 } else { AF_INET };
    let mut query = Query {
        family,
        protocol: packet.protocol,
        sport: packet.key.sport,
        dport: packet.key.dport,
        total_length: 0,
        // SAFETY: the kernel hands every XDP program a valid context.
        ifindex: unsafe { (*ctx).ingress_ifindex },
        tos: 0,
        src: packet.key.src.to_words(),
        dst: packet.key.dst.to_words(),
        vlan: 0,
        src_mac: Mac::default(),
        dst_mac: Mac::default(),
    };
    // SAFETY: `Query` has the layout of the helper's argument.
    let result = unsafe {
        bpf_fib_lookup(ctx.cast(), (&raw mut query).cast(), size_of::<Query>() as i32, 0)
    };
    if result == BPF_FIB_LKUP_RET_NO_NEIGH as i64 {
        if query.family == family {
            F::unresolved_insert(&F::A::from_words(&query.dst), clock::now());
        }
        return Err(Verdict::NeighbourUnknown);
    }
    // Into a tunnel: the kernel would send it there as it is.
    if result == BPF_FIB_LKUP_RET_UNSUPP_LWT as i64 {
        return Err(Verdict::RedirectFailed);
    }
    if result != BPF_FIB_LKUP_RET_SUCCESS as i64 {
        return Err(Verdict::NotOurs);
    }
    // Out of an interface without medlb the replies would not come back to it.
    let interface = maps::interface_slot(query.ifindex).ok_or(Verdict::RedirectFailed)?;
    let draft = F::draft().ok_or(Verdict::FlowTableFull)?;
    draft.flow.hop =
        Hop { interface: interface as u8, tags: Tags::from_bits(0), mac: query.dst_mac };
    Ok(())
}
