//! Reads the state back from pinned maps, so that a daemon that starts anew goes on where the last
//! one stopped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Context as _;
use lb_common::abi::{AddrV4, AddrV6, FILTER_SIZE, Vip};

use super::indices::{Indices, Segments};
use super::record;
use super::state::{RealState, ServiceState, Sizes, State, VipState};
use crate::dataplane::maps::Maps;
use crate::dataplane::table::Table;

/// Sizes of the maps.
pub fn sizes(maps: &Maps) -> Sizes {
    Sizes {
        services: maps.service_banks.capacity(),
        reals: maps.reals.capacity(),
        slots: maps.slots.capacity(),
        ports: maps.ports.capacity(),
        vips: maps.vips_v4.capacity(),
    }
}

/// What is in the maps. Real servers and services that were retired look alive again; the first
/// plan retires them once more.
pub fn adopt(maps: &Maps) -> anyhow::Result<State> {
    let mut state = State::new(sizes(maps));
    let labels = services(maps, &mut state).context("cannot read the services back")?;
    reals(maps, &mut state, &labels).context("cannot read the real servers back")?;
    vips(maps, &mut state).context("cannot read the virtual addresses back")?;
    state.interfaces = maps.interfaces.all().context("cannot read INTERFACES")?;
    let filter = maps.filter.get(0).context("cannot read FILTER")?;
    state.filter = Arc::new(filter.buckets[..FILTER_SIZE].to_vec());
    Ok(state)
}

/// Fills in the services; returns their labels by index.
fn services(maps: &Maps, state: &mut State) -> anyhow::Result<HashMap<u32, Arc<str>>> {
    let mut labels = HashMap::new();
    let names = maps.service_names.all()?;
    for (index, name) in names.iter().enumerate() {
        let Some(label) = record::label(name) else { continue };
        let index = index as u32;
        let label: Arc<str> = label.into();
        let bank = maps.service_banks.get(index)? & 1;
        let record = maps.services.get(index * 2 + bank)?;
        let run = record.slots_first..record.slots_first + record.slots_count;
        let slots = run.map(|i| maps.slots.get(i)).collect::<Result<Vec<_>, _>>()?;
        state.slots.reserve(record.slots_first, record.slots_count);
        let service = ServiceState { index, bank, record, slots: Arc::new(slots), retired: false };
        state.services.insert(label.clone(), service);
        labels.insert(index, label);
    }
    let used: BTreeSet<u32> = labels.keys().copied().collect();
    state.service_indices = Indices::with(state.sizes.services, &used);
    Ok(labels)
}

fn reals(maps: &Maps, state: &mut State, labels: &HashMap<u32, Arc<str>>) -> anyhow::Result<()> {
    let names = maps.real_names.all()?;
    let values = maps.reals.all()?;
    let mut used = BTreeSet::new();
    for (index, (name, value)) in names.iter().zip(&values).enumerate() {
        // A name without a service is what an interrupted release has left: free.
        let Some(service) = labels.get(&value.service) else { continue };
        let Some(key) = record::key(name, value, service) else { continue };
        let index = index as u32;
        used.insert(index);
        state.reals.insert(key, RealState { index, value: *value, retired: false });
    }
    state.real_indices = Indices::with(state.sizes.reals, &used);
    Ok(())
}

fn vips(maps: &Maps, state: &mut State) -> anyhow::Result<()> {
    state.ports = Segments::new(state.sizes.ports);
    state.vips = runs(maps, &maps.vips_v4, &maps.vips_v6, &mut state.ports)?;
    state.outbound = runs(maps, &maps.outbound_v4, &maps.outbound_v6, &mut state.ports)?;
    Ok(())
}

/// Runs of ports by address.
fn runs(
    maps: &Maps,
    v4: &Table<AddrV4, Vip>,
    v6: &Table<AddrV6, Vip>,
    ports: &mut Segments,
) -> anyhow::Result<BTreeMap<IpAddr, VipState>> {
    let mut found: BTreeMap<IpAddr, Vip> = BTreeMap::new();
    v4.walk(|keys, values| {
        let keys = keys.iter().map(|key| IpAddr::V4(Ipv4Addr::from(*key)));
        found.extend(keys.zip(values.iter().copied()));
        Ok(())
    })?;
    v6.walk(|keys, values| {
        let keys = keys.iter().map(|key| IpAddr::V6(Ipv6Addr::from(*key)));
        found.extend(keys.zip(values.iter().copied()));
        Ok(())
    })?;
    let mut runs = BTreeMap::new();
    for (address, vip) in found {
        let run = vip.first..vip.first + vip.count;
        let ranges = run.map(|i| maps.ports.get(i)).collect::<Result<Vec<_>, _>>()?;
        ports.reserve(vip.first, vip.count);
        runs.insert(address, VipState { first: vip.first, ranges: Arc::new(ranges) });
    }
    Ok(runs)
}
