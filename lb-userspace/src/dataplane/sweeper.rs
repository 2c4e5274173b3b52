//! Walks the flow tables: removes what has expired, counts what is there. The judgements are pure
//! functions of a flow, its service and the time.

use std::collections::HashMap;
use std::io;

use aya::Pod;
use lb_common::abi::{
    self, Addr, Bucket, CONNECTIONS_OVERLOADED, Connections, Flow, FlowKey, PersistKey,
    Persistence, flow_flags, service_flags,
};
use lb_common::policy::clock::{age, expired};
use lb_common::policy::tcp::{self, state};

use super::openings::Openings;
use super::table::Table;

/// What a table of flows holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Established TCP.
    Tcp,
    /// Half-open TCP.
    Half,
    /// UDP.
    Udp,
}

/// What the sweeper knows of services and real servers.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// When the sweep began, in ticks: before the rest of this was read.
    pub now: u32,
    /// Services by index; none: the index is free.
    pub services: Vec<Option<abi::Service>>,
    /// Real servers by index; none: the index is free.
    pub reals: Vec<Option<Owner>>,
    /// Real servers whose persistence entries up to a time, in ticks, are to be dropped.
    pub drop_persistence: HashMap<u32, u32>,
}

/// Whose a real server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The service's index.
    pub service: u32,
    /// Not desired any more.
    pub retired: bool,
}

/// What a walk has found, by real server's index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Flows that count as active.
    pub active: u64,
    /// Half-open ones.
    pub pending: u64,
    /// Flows that counted as active and were removed.
    pub removed_active: u64,
    /// The same, half-open.
    pub removed_pending: u64,
    /// Entries of any kind that refer to the real server and are still there.
    pub references: u64,
}

/// The findings of all walks.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By real server's index.
    pub reals: Vec<Found>,
    /// Entries removed.
    pub removed: u64,
}

impl Tally {
    /// For `reals` real servers.
    pub fn new(reals: usize) -> Self {
        Self { reals: vec![Found::default(); reals], removed: 0 }
    }

    fn keep<A>(&mut self, kind: Kind, flow: &Flow<A>) {
        let Some(found) = self.reals.get_mut(flow.real as usize) else { return };
        found.references += 1;
        found.active += counts_active(kind, flow) as u64;
        found.pending += counts_pending(kind, flow) as u64;
    }

    fn remove<A>(&mut self, kind: Kind, flow: &Flow<A>) {
        self.removed += 1;
        let Some(found) = self.reals.get_mut(flow.real as usize) else { return };
        found.removed_active += counts_active(kind, flow) as u64;
        found.removed_pending += counts_pending(kind, flow) as u64;
    }
}

fn counts_active<A>(kind: Kind, flow: &Flow<A>) -> bool {
    kind != Kind::Half && flow.flags & flow_flags::COUNTED != 0
}

fn counts_pending<A>(kind: Kind, flow: &Flow<A>) -> bool {
    kind == Kind::Half && flow.flags & flow_flags::REPLY == 0 && flow.state == state::OPENING
}

impl Context {
    /// Whether a flow has been idle for too long, or belongs to nobody.
    pub fn stale<A>(&self, kind: Kind, flow: &Flow<A>) -> bool {
        let owner = self.reals.get(flow.real as usize).copied().flatten();
        let service = owner.and_then(|owner| *self.services.get(owner.service as usize)?);
        let Some(service) = service else { return self.older(flow.created) };
        let timeout = match kind {
            Kind::Udp => service.udp_idle,
            Kind::Tcp | Kind::Half => tcp::timeout(flow.state, &service),
        };
        expired(self.now, flow.last_seen, timeout)
    }

    /// Whether something began before this sweep did. What began since may belong to a service or
    /// a real server that was added since.
    fn older(&self, began: u32) -> bool {
        age(self.now, began) > 1
    }

    /// Whether a persistence entry is of no use any more.
    pub fn stale_persistence(&self, service: u32, entry: &Persistence) -> bool {
        let Some(Some(record)) = self.services.get(service as usize) else {
            return self.older(entry.renewed);
        };
        if record.flags & service_flags::PERSISTENT == 0
            || expired(self.now, entry.renewed, record.persist)
        {
            return true;
        }
        match self.reals.get(entry.real as usize) {
            Some(Some(owner)) if !owner.retired && owner.service == service => {}
            Some(Some(_)) => return true,
            _ => return self.older(entry.renewed),
        }
        // Not renewed since the server failed.
        self.drop_persistence
            .get(&entry.real)
            .is_some_and(|failed| entry.renewed == *failed || age(*failed, entry.renewed) > 0)
    }
}

/// Walks one table; returns how many entries are left.
pub fn flows<A>(
    table: &Table<FlowKey<A>, Flow<A>>,
    kind: Kind,
    context: &Context,
    tally: &mut Tally,
) -> io::Result<u32>
where
    A: Addr,
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let mut left = 0;
    table.walk(|keys, flows| {
        for (key, flow) in keys.iter().zip(flows) {
            if !context.stale(kind, flow) {
                tally.keep(kind, flow);
                left += 1;
            } else if let Some(kept) = remove(table, kind, context, key, tally)? {
                tally.keep(kind, &kept);
                left += 1;
            }
        }
        Ok(())
    })?;
    Ok(left)
}

/// Counts half-open DR connections. Nothing is removed: the data path, which alone writes there,
/// takes what is stale for absent, and in its place puts what comes next. Returns how many are not
/// stale.
pub fn openings<A>(table: &Openings<A>, context: &Context, tally: &mut Tally) -> io::Result<u32>
where
    A: Addr,
    Bucket<A>: Pod,
{
    let mut left = 0;
    table.walk(|_, flow| {
        if !context.stale(Kind::Half, flow) {
            tally.keep(Kind::Half, flow);
            left += 1;
        }
    })?;
    Ok(left)
}

/// Removes an entry that looked stale, and its pair, if they still are; else returns it. A
/// translated connection lives as long as either of its directions is fresh.
fn remove<A>(
    table: &Table<FlowKey<A>, Flow<A>>,
    kind: Kind,
    context: &Context,
    key: &FlowKey<A>,
    tally: &mut Tally,
) -> io::Result<Option<Flow<A>>>
where
    A: Addr,
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let Some(flow) = table.get(key)? else { return Ok(None) };
    if !context.stale(kind, &flow) {
        return Ok(Some(flow));
    }
    if flow.flags & flow_flags::TRANSLATE != 0 {
        let other = flow.to.reversed();
        if let Some(pair) = table.get(&other)?
            && pair.to.reversed() == *key
        {
            if !context.stale(kind, &pair) {
                return Ok(Some(flow));
            }
            if table.remove(&other)? {
                tally.remove(kind, &pair);
            }
        }
    }
    if table.remove(key)? {
        tally.remove(kind, &flow);
    }
    Ok(None)
}

/// Walks a table of persistence entries; returns how many are left.
pub fn persistence<A>(
    table: &Table<PersistKey<A>, Persistence>,
    context: &Context,
    tally: &mut Tally,
) -> io::Result<u32>
where
    A: Copy,
    PersistKey<A>: Pod,
{
    let mut left = 0;
    table.walk(|keys, entries| {
        for (key, entry) in keys.iter().zip(entries) {
            let stale = context.stale_persistence(key.service, entry)
                && table.get(key)?.is_none_or(|e| context.stale_persistence(key.service, &e));
            if stale {
                tally.removed += table.remove(key)? as u64;
            } else {
                left += 1;
            }
        }
        Ok(())
    })?;
    Ok(left)
}

/// A real server's live counts, and how many connections it had begun, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The counts.
    pub counts: Connections,
    /// Connections begun since its counters began.
    pub begun: u64,
}

/// What the live counts should be, from the counts before and after a walk and what the walk
/// found. `None`: as they are.
///
/// Connections that came and went during the walk may have been counted or not; their number
/// bounds the walk's error, and a difference within it is left alone. Flows that the sweeper
/// removed itself are subtracted exactly.
pub fn corrected(before: Moment, after: Moment, found: Found) -> Option<Connections> {
    let begun = after.begun.saturating_sub(before.begun) as i64;
    let settle = |before: u64, after: u64, found: u64, removed: u64, trusted: bool| -> u64 {
        let (before, after) = (before as i64, after as i64);
        let (found, removed) = (found as i64, removed as i64);
        let ended = begun.saturating_sub(after.saturating_sub(before)).max(0);
        let noise = begun.saturating_add(ended);
        let drift = before.saturating_sub(removed).saturating_sub(found);
        let mut value = after.saturating_sub(removed);
        // An LRU table forgets half-open flows without a word, thousands a second in a flood:
        // what was found is then nearer to the truth than any sum.
        if drift.abs() > noise || (trusted && drift.abs() > found / 4 + 64) {
            value = value.saturating_sub(drift);
        }
        value.max(0) as u64
    };
    let (b, a) = (before.counts, after.counts);
    let corrected = Connections {
        active: settle(b.active, a.active, found.active, found.removed_active, false),
        pending: settle(b.pending, a.pending, found.pending, found.removed_pending, true),
        overloaded: a.overloaded & CONNECTIONS_OVERLOADED,
        ..a
    };
    (corrected != a).then_some(corrected)
}

#[cfg(test)]
mod tests;
