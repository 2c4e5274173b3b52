//! Plans of `PORTS` and the addresses that point at runs of it: virtual addresses, and real servers
//! whose own connections are translated.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use lb_common::abi::{self, PortRange};

use super::indices::Segments;
use super::plan::Op;
use super::record;
use super::state::{State, VipState};
use crate::desired::Desired;

/// What each address should have.
type Wanted = BTreeMap<IpAddr, Vec<PortRange>>;
/// The writes that make an address point at its run, and at none.
type Kinds = (fn(IpAddr, abi::Vip) -> Op, fn(IpAddr) -> Op);

/// Virtual addresses.
pub fn vips(next: &mut State, desired: &Desired, ops: &mut Vec<Op>) -> anyhow::Result<()> {
    let mut wanted = Wanted::new();
    for service in &desired.services {
        let index = next.services[&service.label].index;
        wanted.entry(service.address).or_default().extend(record::ranges(service, index));
    }
    for ranges in wanted.values_mut() {
        ranges.sort_by_key(|range| range.low);
    }
    if families(&wanted) > next.sizes.vips as usize {
        bail!("more than {} virtual addresses of one family", next.sizes.vips);
    }
    follow(wanted, &mut next.vips, &mut next.ports, ops, (Op::Vip, Op::RemoveVip))
        .with_context(|| format!("the services have more than {} runs of ports", next.sizes.ports))
}

/// Sources of outbound SNAT.
pub fn outbound(next: &mut State, desired: &Desired, ops: &mut Vec<Op>) -> anyhow::Result<()> {
    let mut wanted = Wanted::new();
    for outbound in &desired.outbound {
        for (real, ports) in outbound.service.reals.iter().zip(&outbound.ports) {
            let index = next.reals[&real.key].index;
            let spans =
                ports.iter().flat_map(|(protocol, ports)| record::spans(*protocol, ports, index));
            wanted.entry(real.key.address).or_default().extend(spans);
        }
    }
    for ranges in wanted.values_mut() {
        *ranges = disjoint(std::mem::take(ranges));
    }
    if families(&wanted) > next.sizes.vips as usize {
        bail!("outbound_snat has more than {} sources of one family", next.sizes.vips);
    }
    let kinds: Kinds = (Op::Outbound, Op::RemoveOutbound);
    follow(wanted, &mut next.outbound, &mut next.ports, ops, kinds).with_context(|| {
        format!("services and outbound_snat have more than {} runs of ports", next.sizes.ports)
    })
}

/// Addresses of the family that has more.
fn families(wanted: &Wanted) -> usize {
    let v4 = wanted.keys().filter(|address| address.is_ipv4()).count();
    v4.max(wanted.len() - v4)
}

/// Sorted, and what two rules say of the same port once.
fn disjoint(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_by_key(|range| (range.low, range.high));
    let mut out: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for mut range in ranges {
        match out.last_mut() {
            Some(last) if range.service == last.service && range.low <= last.high + 1 => {
                last.high = last.high.max(range.high);
                continue;
            }
            // The configuration refuses this; the first rule holds.
            Some(last) if range.low <= last.high => range.low = last.high + 1,
            _ => {}
        }
        if range.low <= range.high {
            out.push(range);
        }
    }
    out
}

/// Makes `known` what is wanted. An error: there is no room for the runs.
fn follow(
    wanted: Wanted,
    known: &mut BTreeMap<IpAddr, VipState>,
    ports: &mut Segments,
    ops: &mut Vec<Op>,
    (set, remove): Kinds,
) -> anyhow::Result<()> {
    // Removed last, so that ports which move from one address to another are served throughout.
    let gone: Vec<IpAddr> =
        known.keys().filter(|address| !wanted.contains_key(address)).copied().collect();
    for (address, ranges) in wanted {
        let before = known.get(&address);
        if before.is_some_and(|vip| *vip.ranges == ranges) {
            continue;
        }
        if let Some(before) = before {
            ports.give(before.first, before.ranges.len() as u32);
        }
        let count = ranges.len() as u32;
        let first = ports.take(count).context("no room")?;
        let ranges = Arc::new(ranges);
        ops.push(Op::Ports(first, ranges.clone()));
        ops.push(set(address, abi::Vip { first, count }));
        known.insert(address, VipState { first, ranges });
    }
    for address in gone {
        if let Some(vip) = known.remove(&address) {
            ports.give(vip.first, vip.ranges.len() as u32);
        }
        ops.push(remove(address));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(protocol: u8, low: u16, high: u16, service: u32) -> PortRange {
        PortRange {
            low: PortRange::composite(protocol, low),
            high: PortRange::composite(protocol, high),
            service,
            ..PortRange::default()
        }
    }

    #[test]
    fn overlapping_rules_of_one_source_become_one_run() {
        let ranges = vec![
            range(6, 11112, 11112, 1),
            range(17, 0, 514, 1),
            range(6, 104, 104, 1),
            range(6, 100, 103, 1),
            range(6, 102, 102, 1),
            range(6, 11000, 65535, 1),
        ];
        let expected = vec![range(6, 100, 104, 1), range(6, 11000, 65535, 1), range(17, 0, 514, 1)];
        assert_eq!(disjoint(ranges), expected);
    }

    #[test]
    fn a_port_has_one_owner() {
        let ranges = vec![range(6, 1, 10, 1), range(6, 5, 20, 2), range(6, 6, 8, 2)];
        assert_eq!(disjoint(ranges), vec![range(6, 1, 10, 1), range(6, 11, 20, 2)]);
    }
}
