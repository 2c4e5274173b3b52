//! What is in the maps: the starting point of every plan.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::{self, FILTER_SIZE, MAX_INTERFACES, PortRange, Slot};

use super::indices::{Indices, Segments};
use crate::desired::RealKey;

/// Sizes of the array maps.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// `SERVICE_BANKS`.
    pub services: u32,
    /// `REALS`.
    pub reals: u32,
    /// `SLOTS`.
    pub slots: u32,
    /// `PORTS`.
    pub ports: u32,
    /// `VIPS_V4` and `VIPS_V6`, each.
    pub vips: u32,
}

/// The contents of the maps, as far as this side writes them.
#[derive(Clone, Debug)]
pub struct State {
    /// By label, retired ones included.
    pub services: BTreeMap<Arc<str>, ServiceState>,
    /// Retired ones included.
    pub reals: HashMap<RealKey, RealState>,
    /// Ports of the virtual addresses.
    pub vips: BTreeMap<IpAddr, VipState>,
    /// Ports to which real servers' own connections are translated, by their addresses.
    pub outbound: BTreeMap<IpAddr, VipState>,
    /// The bytes of `FILTER`.
    pub filter: Arc<Vec<u8>>,
    /// `INTERFACES`.
    pub interfaces: Vec<abi::Interface>,
    /// Elements of `SERVICE_BANKS`.
    pub service_indices: Indices,
    /// Elements of `REALS`.
    pub real_indices: Indices,
    /// Runs of `SLOTS`.
    pub slots: Segments,
    /// Runs of `PORTS`.
    pub ports: Segments,
    /// Sizes of the maps.
    pub sizes: Sizes,
}

/// A service in the maps.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceState {
    /// Its index.
    pub index: u32,
    /// The bank in use.
    pub bank: u32,
    /// The record in it.
    pub record: abi::Service,
    /// Its slots.
    pub slots: Arc<Vec<Slot>>,
    /// Not desired any more; waits until its last real server is released.
    pub retired: bool,
}

/// A real server in the maps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RealState {
    /// Its index.
    pub index: u32,
    /// Its record.
    pub value: abi::Real,
    /// Not desired any more; waits until nothing refers to it.
    pub retired: bool,
}

/// A virtual address in the maps.
#[derive(Clone, Debug, PartialEq)]
pub struct VipState {
    /// Start of its run in `PORTS`.
    pub first: u32,
    /// The run.
    pub ranges: Arc<Vec<PortRange>>,
}

impl State {
    /// Empty maps.
    pub fn new(sizes: Sizes) -> Self {
        Self {
            services: BTreeMap::new(),
            reals: HashMap::new(),
            vips: BTreeMap::new(),
            outbound: BTreeMap::new(),
            filter: Arc::new(vec![0; FILTER_SIZE]),
            interfaces: vec![abi::Interface::default(); MAX_INTERFACES as usize],
            service_indices: Indices::new(sizes.services),
            real_indices: Indices::new(sizes.reals),
            slots: Segments::new(sizes.slots),
            ports: Segments::new(sizes.ports),
            sizes,
        }
    }

    /// Real servers that are retired.
    pub fn retired(&self) -> Vec<(RealKey, u32)> {
        let retired = self.reals.iter().filter(|(_, real)| real.retired);
        retired.map(|(key, real)| (key.clone(), real.index)).collect()
    }

    /// Forgets a retired real server; its index may be used again.
    pub fn release_real(&mut self, key: &RealKey) {
        if let Some(real) = self.reals.remove(key) {
            self.real_indices.give(real.index);
        }
    }

    /// Retired services without real servers, which can be released.
    pub fn empty_services(&self) -> Vec<(Arc<str>, u32)> {
        let populated: std::collections::HashSet<&Arc<str>> =
            self.reals.keys().map(|key| &key.service).collect();
        self.services
            .iter()
            .filter(|(label, service)| service.retired && !populated.contains(label))
            .map(|(label, service)| (label.clone(), service.index))
            .collect()
    }

    /// Forgets a retired service; its index may be used again.
    pub fn release_service(&mut self, label: &str) {
        if let Some(service) = self.services.remove(label) {
            self.slots.give(service.record.slots_first, service.record.slots_count);
            self.service_indices.give(service.index);
        }
    }
}
