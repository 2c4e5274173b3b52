//! The data plane as the rest of the daemon sees it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use aya::Pod;
use lb_common::abi::{Connections, Counters, Name, Real};
use lb_common::policy::clock::age;

use super::attach::Attachment;
use super::link;
use super::load::{self, Loaded, Options};
use super::maps::{self, Maps};
use super::pins::Pins;
use super::stats;
use super::sweeper::{self, Context, Found, Kind, Moment, Owner, Tally};
use super::table::Table;
use crate::config::model::Config;
use crate::desired::{self, Desired, RealKey, ServerId};
use crate::reconcile::adopt;
use crate::reconcile::apply;
use crate::reconcile::plan::{self, Clock};
use crate::reconcile::state::State;

/// A full table is reported for so many ticks.
const FULL_FOR: u32 = 15;

/// A loaded, attached data plane. All methods block for as long as their map accesses take; a
/// sweep of a million flows takes some tenths of a second and belongs on a blocking thread.
pub struct DataPlane {
    pub(super) loaded: Loaded,
    pub(super) inner: Mutex<Inner>,
    /// One sweep at a time.
    sweeping: Mutex<()>,
    adopted: HashMap<ServerId, u32>,
}

/// What changes.
pub(super) struct Inner {
    pub(super) state: State,
    /// The last plan was not executed to its end: read the state back first.
    interrupted: bool,
    /// Services and their real servers in the file's order, for listings.
    pub(super) order: Vec<(Arc<str>, Vec<RealKey>)>,
    /// Real servers that failed, and when, in ticks.
    drop_persistence: HashMap<u32, u32>,
    /// Entries by table at the last sweep, in the order of [`super::stats::TABLES`].
    pub(super) entries: Option<[u32; stats::TABLES.len()]>,
}

/// What an application of a desired state did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyReport {
    /// Map writes.
    pub writes: usize,
    /// Real servers that were removed and still wait for their connections to end.
    pub retired: usize,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Entries removed from all tables.
    pub removed: u64,
    /// Real servers whose connection counts had drifted and were mended.
    pub corrected: usize,
    /// Removed real servers that nothing refers to any more, as `service/server`.
    pub released: Vec<String>,
    /// The table of established connections was found full in the last quarter of a minute.
    pub full: bool,
}

impl DataPlane {
    /// Loads the data plane or adopts the one that is pinned, and attaches it. The notes are for
    /// the operator.
    pub fn open(config: &Config) -> anyhow::Result<(Self, Vec<String>)> {
        Self::open_with(config, Options::default())
    }

    /// The same with options.
    pub fn open_with(config: &Config, options: Options) -> anyhow::Result<(Self, Vec<String>)> {
        let mut notes = Vec::new();
        let loaded = load::open(config, options, &mut notes)?;
        let state = adopt::adopt(&loaded.maps)?;
        let decided = |(key, real): (&RealKey, &crate::reconcile::state::RealState)| {
            ((key.service.to_string(), key.label.to_string()), real.value.flags)
        };
        let adopted = if loaded.adopted {
            state.reals.iter().filter(|(key, _)| !key.fallback).map(decided).collect()
        } else {
            first_start(config)
        };
        let inner = Inner {
            state,
            interrupted: false,
            order: Vec::new(),
            drop_persistence: HashMap::new(),
            entries: None,
        };
        let plane = Self { loaded, inner: Mutex::new(inner), sweeping: Mutex::new(()), adopted };
        Ok((plane, notes))
    }

    /// Whether the data plane was there already, with its flows and counters.
    pub fn was_adopted(&self) -> bool {
        self.loaded.adopted
    }

    /// The real servers' flags as an earlier daemon left them, for
    /// [`crate::desired::Inputs::adopted`].
    pub fn adopted(&self) -> &HashMap<ServerId, u32> {
        &self.adopted
    }

    /// Where the program runs.
    pub fn attachments(&self) -> &[Attachment] {
        &self.loaded.attachments
    }

    /// The interfaces that the program runs on, and those of the given kernel indices, as they are
    /// now: for [`crate::desired::Inputs::links`]. Those that are gone are left out. The MTU is 0,
    /// not checked, as long as the program runs in generic mode anywhere: there the kernel has put
    /// packets together (GRO) that are larger than any MTU and takes them apart again later.
    pub fn links(&self, others: &[u32]) -> anyhow::Result<Vec<desired::Link>> {
        let attached = self.attachments().iter().map(|attachment| attachment.ifindex);
        let mut indices: Vec<u32> = attached.chain(others.iter().copied()).collect();
        indices.sort_unstable();
        indices.dedup();
        let native = self.attachments().iter().all(|attachment| attachment.native);
        let mut links = Vec::with_capacity(indices.len());
        for index in indices {
            if let Some(link) = link::query(link::By::Index(index))? {
                links.push(desired::Link {
                    ifindex: index,
                    mac: link.mac,
                    mtu: if native { link.mtu } else { 0 },
                });
            }
        }
        Ok(links)
    }

    /// Now, in ticks, as the data path sees it.
    pub fn now(&self) -> anyhow::Result<u32> {
        self.loaded.now()
    }

    pub(super) fn clock(&self) -> Clock {
        Clock { hz: self.loaded.meta.hz, tick_shift: self.loaded.meta.tick_shift }
    }

    pub(super) fn maps(&self) -> &Maps {
        &self.loaded.maps
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic between two writes leaves what an error leaves: `interrupted` is set then.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the maps to the desired state. An error before the first write changes nothing.
    pub fn apply(&self, wanted: &Desired) -> anyhow::Result<ApplyReport> {
        let mut inner = self.lock();
        if inner.interrupted {
            inner.state = adopt::adopt(self.maps())?;
            inner.interrupted = false;
        }
        let plan = plan::plan(&inner.state, wanted, self.clock())?;
        if !plan.ops.is_empty() {
            inner.interrupted = true;
            apply::apply(self.maps(), &plan.ops)?;
            inner.interrupted = false;
        }
        if !plan.drop_persistence.is_empty() {
            let now = self.now()?;
            inner.drop_persistence.extend(plan.drop_persistence.iter().map(|real| (*real, now)));
        }
        inner.state = plan.next;
        if let Some(checks) = &self.loaded.checks {
            let mut checks = checks.lock().unwrap_or_else(PoisonError::into_inner);
            checks.follow(wanted, &inner.state)?;
        }
        let order = |s: &desired::Service| {
            (s.label.clone(), s.reals.iter().map(|real| real.key.clone()).collect())
        };
        inner.order = wanted.services.iter().map(order).collect();
        let retired = inner.state.reals.values().filter(|real| real.retired).count();
        Ok(ApplyReport { writes: plan.ops.len(), retired })
    }

    /// Next hops of outbound connections that could not be sent for want of a MAC address, since the
    /// last time that this was asked.
    pub fn unresolved(&self) -> anyhow::Result<Vec<IpAddr>> {
        let maps = self.maps();
        let v4 = take(&maps.unresolved_v4).context("cannot read UNRESOLVED_V4")?;
        let v6 = take(&maps.unresolved_v6).context("cannot read UNRESOLVED_V6")?;
        let v4 = v4.into_iter().map(|hop| IpAddr::V4(hop.into()));
        Ok(v4.chain(v6.into_iter().map(|hop| IpAddr::V6(hop.into()))).collect())
    }

    /// The mark (`SO_MARK`) that sends the packets of a service's checks through its VIP; none
    /// where they go to the real servers' own addresses.
    pub fn check_mark(&self, service: &str) -> Option<u32> {
        let inner = self.lock();
        let checks = self.loaded.checks.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        checks.mark(&inner.state, service)
    }

    /// Removes expired entries, mends connection counts, releases removed real servers that
    /// nothing refers to any more. Every ten seconds is often enough; a table of a million flows
    /// then takes a few per cent of one core.
    pub fn sweep(&self) -> anyhow::Result<SweepReport> {
        let _one_at_a_time = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        let (context, retired) = self.snapshot(self.now()?);
        let before = self.moments(&context)?;
        let mut tally = Tally::new(context.reals.len());
        let entries = self.walk(&context, &mut tally).context("cannot walk the flow tables")?;
        let after = self.moments(&context)?;
        let corrected = self.correct(&before, &after, &tally.reals)?;

        let mut inner = self.lock();
        inner.entries = Some(entries);
        // Those that failed during the sweep wait for the next one.
        inner.drop_persistence.retain(|real, at| context.drop_persistence.get(real) != Some(at));
        let mut released = Vec::new();
        for (key, index) in retired {
            let still = inner.state.reals.get(&key).is_some_and(|r| r.retired && r.index == index);
            if still && tally.reals[index as usize].references == 0 {
                self.release_real(&mut inner.state, &key, index)?;
                released.push(format!("{}/{}", key.service, key.label));
            }
        }
        for (label, index) in inner.state.empty_services() {
            self.release_service(index)?;
            inner.state.release_service(&label);
        }
        let full = self.full(context.now)?;
        Ok(SweepReport { removed: tally.removed, corrected, released, full })
    }

    /// What the sweeper needs to know, and the retired real servers as of now.
    fn snapshot(&self, now: u32) -> (Context, Vec<(RealKey, u32)>) {
        let inner = self.lock();
        let state = &inner.state;
        let mut services = vec![None; state.service_indices.bound() as usize];
        for service in state.services.values() {
            services[service.index as usize] = Some(service.record);
        }
        let mut reals = vec![None; state.real_indices.bound() as usize];
        for real in state.reals.values() {
            reals[real.index as usize] =
                Some(Owner { service: real.value.service, retired: real.retired });
        }
        let drop_persistence = inner.drop_persistence.clone();
        (Context { now, services, reals, drop_persistence }, state.retired())
    }

    /// Whether the data path has lately found a table of established connections full.
    fn full(&self, now: u32) -> std::io::Result<bool> {
        let pressure = self.maps().pressure.all()?;
        Ok(pressure.into_iter().any(|at| at != 0 && age(now, at) <= FULL_FOR))
    }

    fn walk(
        &self,
        context: &Context,
        tally: &mut Tally,
    ) -> std::io::Result<[u32; stats::TABLES.len()]> {
        let maps = self.maps();
        Ok([
            sweeper::flows(&maps.tcp_v4, Kind::Tcp, context, tally)?,
            sweeper::flows(&maps.tcp_v6, Kind::Tcp, context, tally)?,
            sweeper::flows(&maps.half_v4, Kind::Half, context, tally)?,
            sweeper::flows(&maps.half_v6, Kind::Half, context, tally)?,
            sweeper::openings(&maps.opening_v4, context, tally)?,
            sweeper::openings(&maps.opening_v6, context, tally)?,
            sweeper::flows(&maps.udp_v4, Kind::Udp, context, tally)?,
            sweeper::flows(&maps.udp_v6, Kind::Udp, context, tally)?,
            sweeper::persistence(&maps.persist_v4, context, tally)?,
            sweeper::persistence(&maps.persist_v6, context, tally)?,
        ])
    }

    /// The live counts of all real servers.
    fn moments(&self, context: &Context) -> anyhow::Result<Vec<Moment>> {
        let moment = |(index, owner): (usize, &Option<Owner>)| {
            if owner.is_none() {
                return Ok(Moment::default());
            }
            let counts = self.maps().connections.get(index as u32)?;
            let begun = self.maps().traffic(index as u32)?.connections;
            Ok(Moment { counts, begun })
        };
        let moments = context.reals.iter().enumerate().map(moment);
        moments.collect::<std::io::Result<_>>().context("cannot read connection counts")
    }

    fn correct(
        &self,
        before: &[Moment],
        after: &[Moment],
        found: &[Found],
    ) -> anyhow::Result<usize> {
        let mut corrected = 0;
        for (index, ((before, after), found)) in before.iter().zip(after).zip(found).enumerate() {
            if sweeper::corrected(*before, *after, *found).is_none() {
                continue;
            }
            // Once more with counts read just now: an addition between this read and the write is
            // lost, and the next sweep finds it.
            let index = index as u32;
            let counts = self.maps().connections.get(index)?;
            let begun = self.maps().traffic(index)?.connections;
            if let Some(counts) = sweeper::corrected(*before, Moment { counts, begun }, *found) {
                self.maps().connections.set(index, &counts)?;
                corrected += 1;
            }
        }
        Ok(corrected)
    }

    /// Frees a real server's index. Its traffic stays in its service's sum.
    fn release_real(&self, state: &mut State, key: &RealKey, index: u32) -> anyhow::Result<()> {
        let maps = self.maps();
        let owner = state.reals.get(key).map_or(maps::SERVICES, |real| real.value.service);
        self.fold(owner, maps.traffic(index)?)?;
        maps.counters.clear(index)?;
        maps.connections.set(index, &Connections::default())?;
        maps.real_names.set(index, &Name { bytes: [0; 128] })?;
        maps.reals.set(index, &Real::default())?;
        state.release_real(key);
        Ok(())
    }

    /// Frees a service's index.
    fn release_service(&self, index: u32) -> anyhow::Result<()> {
        let maps = self.maps();
        self.fold(maps::SERVICES, maps.retired.get(index)?)?;
        maps.retired.set(index, &Counters::default())?;
        maps.service_drops.clear(index)?;
        maps.service_names.set(index, &Name { bytes: [0; 128] })?;
        for bank in 0..2 {
            maps.services.set(index * 2 + bank, &Default::default())?;
        }
        Ok(())
    }

    /// Adds to the retired traffic of a service, or of all services that are gone.
    fn fold(&self, service: u32, traffic: Counters) -> anyhow::Result<()> {
        let sum = maps::add(self.maps().retired.get(service)?, traffic);
        Ok(self.maps().retired.set(service, &sum)?)
    }
}

/// Takes all entries out of a table, and gives their keys.
fn take<K: Pod>(table: &Table<K, u32>) -> std::io::Result<Vec<K>> {
    let mut found = Vec::new();
    table.walk(|keys, _| {
        found.extend_from_slice(keys);
        Ok(())
    })?;
    for key in &found {
        table.remove(key)?;
    }
    Ok(found)
}

/// What holds for the servers of the file until they are judged.
fn first_start(config: &Config) -> HashMap<ServerId, u32> {
    let servers = |service: &crate::config::model::Service| {
        let label = service.label.clone();
        let ids = service.real_servers.iter().map(move |s| (label.clone(), s.label.clone()));
        ids.map(|id| (id, desired::FIRST_START)).collect::<Vec<_>>()
    };
    config.services.iter().flat_map(servers).collect()
}

/// Detaches and removes everything under `pin_dir`; returns what it removed, in words. Does
/// nothing, without an error, where there is nothing.
pub fn teardown(pin_dir: &Path) -> anyhow::Result<Vec<String>> {
    Pins::new(pin_dir).remove()
}
