//! Executes a plan: nothing but map writes.

use std::io;
use std::net::IpAddr;

use anyhow::Context as _;
use lb_common::abi::{AddrV4, AddrV6, Filter, Interface};

use super::plan::Op;
use crate::dataplane::maps::Maps;

/// Executes the writes in order. After an error the maps are between two states, each write of
/// which is valid by itself: read the state anew (`adopt`) before the next plan.
pub fn apply(maps: &Maps, ops: &[Op]) -> anyhow::Result<()> {
    for op in ops {
        write(maps, op).with_context(|| format!("cannot write to {}", map_of(op)))?;
    }
    Ok(())
}

fn write(maps: &Maps, op: &Op) -> io::Result<()> {
    match op {
        Op::Interface(slot, interface) => set_interface(maps, *slot, interface),
        Op::RemoveInterface(slot, ifindex) => {
            maps.interface_slots.remove(ifindex)?;
            maps.tx_ports.remove(*slot)?;
            maps.tx_ports_linear.remove(*slot)?;
            maps.interfaces.set(*slot, &Interface::default())
        }
        Op::Filter(bytes) => {
            let mut filter = Box::new(Filter { buckets: [0; _] });
            filter.buckets.copy_from_slice(bytes);
            maps.filter.set(0, &filter)
        }
        Op::ServiceName(index, name) => maps.service_names.set(*index, name),
        Op::RealName(index, name) => maps.real_names.set(*index, name),
        Op::Real(index, real) => maps.reals.set(*index, real),
        Op::Slots(first, slots) => maps.slots.set_run(*first, slots),
        Op::Service(index, bank, service) => maps.services.set(index * 2 + bank, service),
        Op::Bank(index, bank) => maps.service_banks.set(*index, bank),
        Op::Ports(first, ranges) => maps.ports.set_run(*first, ranges),
        Op::Vip(IpAddr::V4(address), vip) => maps.vips_v4.set(&AddrV4::from(*address), vip),
        Op::Vip(IpAddr::V6(address), vip) => maps.vips_v6.set(&AddrV6::from(*address), vip),
        Op::RemoveVip(IpAddr::V4(address)) => {
            maps.vips_v4.remove(&AddrV4::from(*address)).map(|_| ())
        }
        Op::RemoveVip(IpAddr::V6(address)) => {
            maps.vips_v6.remove(&AddrV6::from(*address)).map(|_| ())
        }
        Op::Outbound(IpAddr::V4(source), run) => maps.outbound_v4.set(&AddrV4::from(*source), run),
        Op::Outbound(IpAddr::V6(source), run) => maps.outbound_v6.set(&AddrV6::from(*source), run),
        Op::RemoveOutbound(IpAddr::V4(source)) => {
            maps.outbound_v4.remove(&AddrV4::from(*source)).map(|_| ())
        }
        Op::RemoveOutbound(IpAddr::V6(source)) => {
            maps.outbound_v6.remove(&AddrV6::from(*source)).map(|_| ())
        }
    }
}

/// The slot's old kernel index, if it had one, must not lead to it any more.
fn set_interface(maps: &Maps, slot: u32, interface: &Interface) -> io::Result<()> {
    let before = maps.interfaces.get(slot)?;
    if before.ifindex != 0 && before.ifindex != interface.ifindex {
        maps.interface_slots.remove(&before.ifindex)?;
    }
    maps.interfaces.set(slot, interface)?;
    maps.tx_ports.set(slot, &[interface.ifindex, 0])?;
    maps.tx_ports_linear.set(slot, &[interface.ifindex, 0])?;
    maps.interface_slots.set(&interface.ifindex, &slot)
}

fn map_of(op: &Op) -> &'static str {
    match op {
        Op::Interface(..) | Op::RemoveInterface(..) => "the maps of interfaces",
        Op::Filter(..) => "FILTER",
        Op::ServiceName(..) => "SERVICE_NAMES",
        Op::RealName(..) => "REAL_NAMES",
        Op::Real(..) => "REALS",
        Op::Slots(..) => "SLOTS",
        Op::Service(..) => "SERVICES",
        Op::Bank(..) => "SERVICE_BANKS",
        Op::Ports(..) => "PORTS",
        Op::Vip(..) | Op::RemoveVip(..) => "VIPS",
        Op::Outbound(..) | Op::RemoveOutbound(..) => "OUTBOUND",
    }
}
