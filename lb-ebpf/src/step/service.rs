//! Which service a packet is for.

use lb_common::abi::{FilterBit, PortRange, Service, Verdict, Vip, service_flags};

use crate::{family::Family, maps, step::parse::Packet};

/// Runs of `PORTS` are searched by halving: enough for every port of an address on its own.
const HALVINGS: u32 = 16;

/// Whether the packet can be ours at all: two loads, no look-up.
#[inline(always)]
pub fn possible<F: Family>(packet: &Packet<F::A>) -> bool {
    // A VIP as the source is a check's answer, which is judged elsewhere.
    maps::filter(packet.key.dst) & FilterBit::VIP != 0
        || maps::filter(packet.key.src) & FilterBit::REAL != 0
}

/// The service of a packet to a VIP, with its index.
#[inline(always)]
pub fn find<F: Family>(packet: &Packet<F::A>) -> Result<(u32, &'static Service), Verdict> {
    let vip = F::vip(&packet.key.dst).ok_or(Verdict::NotOurs)?;
    // SAFETY: the look-up gave the pointer; the value is copied at once.
    let vip = unsafe { *vip };
    let index = search(vip, packet).ok_or(Verdict::ToKernel)?;
    let service = maps::service(index).ok_or(Verdict::ToKernel)?;
    if service.flags & service_flags::ENABLED == 0 {
        return Err(Verdict::ToKernel);
    }
    Ok((index, service))
}

/// Whose the packet's destination port is in a run of `PORTS`. In that of a VIP, a port without a
/// service is the host's own business.
#[inline(always)]
pub fn search<A>(run: Vip, packet: &Packet<A>) -> Option<u32> {
    let wanted = PortRange::composite(packet.protocol, packet.key.dport.get());
    let (mut low, mut high) = (0, run.count);
    let mut turn = 0;
    while turn < HALVINGS && low < high {
        let middle = (low + high) >> 1;
        let range = maps::port_range(run.first + middle)?;
        if wanted < range.low {
            high = middle;
        } else if wanted > range.high {
            low = middle + 1;
        } else {
            return Some(range.service);
        }
        turn += 1;
    }
    None
}
