//! The difference between what is in the maps and what should be, as a list of writes in an order
//! that is safe at every step: pure.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use lb_common::abi::{self, FILTER_SIZE, FilterBit, Name, PortRange, Slot, mode, real_flags};

use super::record;
use super::runs;
use super::state::{RealState, ServiceState, State};
use crate::desired::{Desired, RealKey, Service};

/// The data path's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Timer interrupts a second.
    pub hz: u32,
    /// Jiffies to ticks.
    pub tick_shift: u32,
}

/// A write.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `INTERFACES`, `TX_PORTS` and `INTERFACE_SLOTS`.
    Interface(u32, abi::Interface),
    /// The same, removed; the kernel's index second.
    RemoveInterface(u32, u32),
    /// `FILTER`.
    Filter(Arc<Vec<u8>>),
    /// `SERVICE_NAMES`.
    ServiceName(u32, Box<Name>),
    /// `REAL_NAMES`.
    RealName(u32, Box<Name>),
    /// `REALS`.
    Real(u32, abi::Real),
    /// `SLOTS`, from an element on.
    Slots(u32, Arc<Vec<Slot>>),
    /// `SERVICES`: index, bank, record.
    Service(u32, u32, Box<abi::Service>),
    /// `SERVICE_BANKS`: index, bank.
    Bank(u32, u32),
    /// `PORTS`, from an element on.
    Ports(u32, Arc<Vec<PortRange>>),
    /// `VIPS_V4` or `VIPS_V6`.
    Vip(IpAddr, abi::Vip),
    /// The same, removed.
    RemoveVip(IpAddr),
    /// `OUTBOUND_V4` or `OUTBOUND_V6`.
    Outbound(IpAddr, abi::Vip),
    /// The same, removed.
    RemoveOutbound(IpAddr),
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Writes, in order.
    pub ops: Vec<Op>,
    /// The state when all are done.
    pub next: State,
    /// Real servers that have just failed and whose persistence entries are to be dropped.
    pub drop_persistence: Vec<u32>,
}

/// Writes by phase. A packet that comes between any two of them is treated by the old state or
/// the new one.
#[derive(Default)]
struct Phases {
    /// Real servers that must not be used any more: before anything else.
    urgent: Vec<Op>,
    /// Interfaces, filter bits, names: nothing points at them yet.
    prepare: Vec<Op>,
    /// Real servers that are new or have changed.
    reals: Vec<Op>,
    /// Selection tables.
    slots: Vec<Op>,
    /// Service records and the switch to them.
    services: Vec<Op>,
    /// Runs of ports and the addresses that point at them.
    vips: Vec<Op>,
    /// Real servers, filter bits and interfaces that nothing new points at.
    retire: Vec<Op>,
}

/// The plan. An error means that the configuration does not fit the maps; nothing is changed then.
pub fn plan(state: &State, desired: &Desired, clock: Clock) -> anyhow::Result<Plan> {
    let mut phases = Phases::default();
    let mut next = state.clone();
    next.slots.settle();
    next.ports.settle();
    let mut drop_persistence = Vec::new();

    interfaces(&mut next, desired, &mut phases)?;
    let mut wanted = HashSet::new();
    for service in desired.records() {
        let indices = reals(&mut next, service, &mut phases, &mut drop_persistence)?;
        wanted.extend(service.reals.iter().map(|real| real.key.clone()));
        services(&mut next, service, &indices, clock, &mut phases)?;
    }
    retire(&mut next, desired, &wanted, &mut phases);
    runs::vips(&mut next, desired, &mut phases.vips)?;
    runs::outbound(&mut next, desired, &mut phases.vips)?;
    filter(state, &mut next, desired, &mut phases);
    unused_interfaces(&mut next, desired, &mut phases);

    let Phases { urgent, prepare, reals, slots, services, vips, retire } = phases;
    let ops = [urgent, prepare, reals, slots, services, vips, retire].concat();
    Ok(Plan { ops, next, drop_persistence })
}

fn interfaces(next: &mut State, desired: &Desired, phases: &mut Phases) -> anyhow::Result<()> {
    for link in &desired.links {
        let known = next.interfaces.iter().position(|i| i.ifindex == link.ifindex);
        let slot = known
            .or_else(|| next.interfaces.iter().position(|i| i.ifindex == 0))
            .with_context(|| format!("more than {} interfaces", next.interfaces.len()))?;
        let value = abi::Interface {
            ifindex: link.ifindex,
            mac: link.mac.into(),
            mtu: link.mtu,
            ..abi::Interface::default()
        };
        if next.interfaces[slot] != value {
            next.interfaces[slot] = value;
            phases.prepare.push(Op::Interface(slot as u32, value));
        }
    }
    Ok(())
}

/// Interfaces that neither the file nor a real server names any more.
fn unused_interfaces(next: &mut State, desired: &Desired, phases: &mut Phases) {
    let used: HashSet<u32> = next.reals.values().map(|real| real.value.ifindex).collect();
    for (slot, interface) in next.interfaces.iter_mut().enumerate() {
        let ifindex = interface.ifindex;
        let wanted = desired.links.iter().any(|link| link.ifindex == ifindex);
        if ifindex != 0 && !wanted && !used.contains(&ifindex) {
            *interface = abi::Interface::default();
            phases.retire.push(Op::RemoveInterface(slot as u32, ifindex));
        }
    }
}

/// The index of a service, taken now if it has none.
fn service_index(next: &mut State, label: &Arc<str>, phases: &mut Phases) -> anyhow::Result<u32> {
    if let Some(service) = next.services.get(label) {
        return Ok(service.index);
    }
    let index = next.service_indices.take().with_context(|| {
        format!("more than {} virtual services, removed ones included", next.sizes.services)
    })?;
    let fresh = ServiceState {
        index,
        bank: 0,
        record: abi::Service::default(),
        slots: Arc::default(),
        retired: false,
    };
    next.services.insert(label.clone(), fresh);
    phases.prepare.push(Op::ServiceName(index, Box::new(record::name(label))));
    Ok(index)
}

/// Brings a service's real servers up to date and returns their indices.
fn reals(
    next: &mut State,
    service: &Service,
    phases: &mut Phases,
    drop_persistence: &mut Vec<u32>,
) -> anyhow::Result<Vec<u32>> {
    let owner = service_index(next, &service.label, phases)?;
    let mut indices = Vec::with_capacity(service.reals.len());
    for real in &service.reals {
        let before = next.reals.get(&real.key).copied();
        let interfaces = &next.interfaces;
        let slot = |ifindex: u32| {
            let found = interfaces.iter().position(|i| i.ifindex == ifindex);
            found.map(|slot| slot as u32)
        };
        let value = record::real(real, owner, slot, before.as_ref().map(|b| &b.value));
        let index = match before {
            Some(before) => before.index,
            None => next.real_indices.take().with_context(|| {
                format!(
                    "more than {} real servers, those included that were removed and still have \
                     connections",
                    next.sizes.reals
                )
            })?,
        };
        indices.push(index);
        match before {
            None => {
                phases.prepare.push(Op::RealName(index, Box::new(record::real_name(&real.key))));
                phases.reals.push(Op::Real(index, value));
            }
            Some(before) if before.value != value => {
                let lost = before.value.flags & !value.flags & real_flags::ACCEPT;
                let reset = value.flags & !before.value.flags & real_flags::RESET;
                let urgent = lost | reset != 0;
                let phase = if urgent { &mut phases.urgent } else { &mut phases.reals };
                phase.push(Op::Real(index, value));
                if service.drop_persistence && record::went_down(&before.value, real) {
                    drop_persistence.push(index);
                }
            }
            Some(_) => {}
        }
        next.reals.insert(real.key.clone(), RealState { index, value, retired: false });
    }
    Ok(indices)
}

/// Brings a service's record and selection table up to date.
fn services(
    next: &mut State,
    service: &Service,
    indices: &[u32],
    clock: Clock,
    phases: &mut Phases,
) -> anyhow::Result<()> {
    let before = next.services[&service.label].clone();
    let slots = record::slots(service, indices);
    let same = *before.slots == slots;
    let run = if same {
        (before.record.slots_first, before.record.slots_count)
    } else {
        let count = slots.len() as u32;
        let first = next.slots.take(count).with_context(|| {
            format!(
                "the selection tables of all services need more than {} places; use the maglev \
                 scheduler for fewer services",
                next.sizes.slots
            )
        })?;
        next.slots.give(before.record.slots_first, before.record.slots_count);
        (first, count)
    };
    let fallback = service.fallback.map(|position| indices[position]);
    let value = record::service(service, clock, run, fallback);
    let slots = Arc::new(slots);
    if !same {
        phases.slots.push(Op::Slots(run.0, slots.clone()));
    }
    let mut bank = before.bank;
    if value != before.record {
        bank ^= 1;
        phases.services.push(Op::Service(before.index, bank, Box::new(value)));
        phases.services.push(Op::Bank(before.index, bank));
    }
    let after = ServiceState { index: before.index, bank, record: value, slots, retired: false };
    next.services.insert(service.label.clone(), after);
    Ok(())
}

/// What is not desired any more takes no new connections; those that it has go on.
fn retire(next: &mut State, desired: &Desired, wanted: &HashSet<RealKey>, phases: &mut Phases) {
    for (key, real) in &mut next.reals {
        if wanted.contains(key) {
            continue;
        }
        real.retired = true;
        let flags = real.value.flags & !(real_flags::ACCEPT | real_flags::ACCEPT_PERSISTENT);
        if flags != real.value.flags {
            real.value.flags = flags;
            phases.retire.push(Op::Real(real.index, real.value));
        }
    }
    let labels: HashSet<&Arc<str>> = desired.records().map(|s| &s.label).collect();
    for (label, service) in &mut next.services {
        service.retired = !labels.contains(label);
    }
}

/// Filter bits are set before anything else and cleared after everything else.
fn filter(state: &State, next: &mut State, desired: &Desired, phases: &mut Phases) {
    let mut bytes = vec![0; FILTER_SIZE];
    let mut set = |address: IpAddr, bit: u8| bytes[record::bucket(address)] |= bit;
    for service in desired.records() {
        set(service.address, FilterBit::VIP);
        if let Some(source) = service.source {
            set(source, FilterBit::VIP);
        }
    }
    // Retired ones too: their connections go on.
    for key in next.reals.keys().filter(|key| key.mode != mode::DR) {
        set(key.address, FilterBit::REAL);
    }
    if bytes == *state.filter {
        return;
    }
    let both: Vec<u8> = bytes.iter().zip(state.filter.iter()).map(|(a, b)| a | b).collect();
    next.filter = Arc::new(bytes);
    if both != *state.filter {
        phases.prepare.push(Op::Filter(Arc::new(both.clone())));
    }
    if both != *next.filter {
        phases.retire.push(Op::Filter(next.filter.clone()));
    }
}

#[cfg(test)]
mod tests;
