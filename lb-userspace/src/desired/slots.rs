//! Selection tables: which real servers a new connection can go to, in what form.

use std::time::Duration;

use lb_common::abi::Select;
use lb_common::policy::maglev::{self, Member};
use lb_common::policy::schedule;

use super::{Effective, Inputs, Real, view};
use crate::config::model::{self, Scheduler, ServiceMode};

/// While a slow start is under way, weights are written anew this often.
const STEP: Duration = Duration::from_secs(1);

/// Weights are multiplied by this while a slow start is under way, so that a weight of 1 can grow
/// from a hundredth.
const FINE: u32 = 100;

/// A selection table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// One of [`Select`]'s.
    pub select: u8,
    /// Positions in the service's real servers, and weights (not 0).
    pub entries: Vec<(usize, u32)>,
}

/// A server that can take connections.
struct Candidate {
    position: usize,
    weight: u32,
}

/// The table for a service whose real servers are `reals` (the fallback server not among them).
pub fn slots(
    inputs: &Inputs<'_>,
    service: &model::Service,
    reals: &[Real],
    again_in: &mut Option<Duration>,
) -> Slots {
    let usable = usable(service, reals);
    if service.mode == ServiceMode::Failover {
        let entries = usable.iter().map(|c| (c.position, 1)).collect();
        return Slots { select: Select::FIRST, entries };
    }
    match service.scheduler {
        Scheduler::Wlc | Scheduler::Lc => {
            let entries = grown(inputs, service, usable, again_in);
            Slots { select: Select::LEAST, entries }
        }
        Scheduler::Wrr | Scheduler::Rr => {
            let entries = grown(inputs, service, usable, again_in);
            let weights: Vec<u32> = entries.iter().map(|(_, weight)| *weight).collect();
            let sequence = schedule::weighted(&weights);
            let entries = sequence.iter().map(|i| (entries[*i as usize].0, 1)).collect();
            Slots { select: Select::CURSOR, entries }
        }
        Scheduler::Sh => Slots { select: Select::HASH, entries: source_hash(service, &usable) },
        Scheduler::Maglev => Slots { select: Select::HASH, entries: maglev(service, &usable) },
    }
}

/// Servers that take new connections, in the order of preference: backups only when there is
/// nobody else, except in failover mode, where they come last.
fn usable(service: &model::Service, reals: &[Real]) -> Vec<Candidate> {
    let in_rotation = |position: &usize| reals[*position].effective == Effective::InRotation;
    let mut positions: Vec<usize> = (0..reals.len()).filter(in_rotation).collect();
    // A server whose neighbour is not known yet would lose the packet: it waits as long as there
    // is another.
    if positions.iter().any(|p| reals[*p].hop.is_some()) {
        positions.retain(|p| reals[*p].hop.is_some());
    }
    let is_backup = |position: &usize| service.real_servers[*position].backup;
    if service.mode == ServiceMode::Failover {
        positions.sort_by_key(is_backup); // stable: file order within each
    } else if positions.iter().any(|p| !is_backup(p)) {
        positions.retain(|p| !is_backup(p));
    }
    let even = matches!(service.scheduler, Scheduler::Lc | Scheduler::Rr);
    let weight = |p: usize| if even { 1 } else { service.real_servers[p].weight as u32 };
    positions.into_iter().map(|p| Candidate { position: p, weight: weight(p) }).collect()
}

/// Weights with slow start, if any server is in one.
fn grown(
    inputs: &Inputs<'_>,
    service: &model::Service,
    usable: Vec<Candidate>,
    again_in: &mut Option<Duration>,
) -> Vec<(usize, u32)> {
    let since_up = |position: usize| -> Option<Duration> {
        let server = &service.real_servers[position];
        let changed = view(inputs, service, server)?.changed_at;
        let elapsed = inputs.now.duration_since(changed).unwrap_or_default();
        (elapsed < server.slow_start).then_some(elapsed)
    };
    let starting: Vec<Option<Duration>> = usable.iter().map(|c| since_up(c.position)).collect();
    if starting.iter().all(Option::is_none) {
        return usable.iter().map(|c| (c.position, c.weight)).collect();
    }
    *again_in = Some(STEP);
    let grow = |(candidate, elapsed): (&Candidate, &Option<Duration>)| {
        let whole = candidate.weight.saturating_mul(FINE);
        let weight = match elapsed {
            None => whole,
            Some(elapsed) => {
                let slow_start = service.real_servers[candidate.position].slow_start;
                schedule::growing(whole, elapsed.as_millis() as u64, slow_start.as_millis() as u64)
            }
        };
        (candidate.position, weight.max(1))
    };
    usable.iter().zip(&starting).map(grow).collect()
}

/// Source hash: the table is made of all servers in the file, so that it stays the same when some
/// fail; the places of those that cannot take connections go to the others, spread out.
fn source_hash(service: &model::Service, usable: &[Candidate]) -> Vec<(usize, u32)> {
    if usable.is_empty() {
        return Vec::new();
    }
    let backups = usable.iter().all(|c| service.real_servers[c.position].backup);
    let configured: Vec<(usize, u32)> = service
        .real_servers
        .iter()
        .enumerate()
        .filter(|(_, server)| server.backup == backups && server.weight > 0)
        .map(|(position, server)| (position, server.weight as u32))
        .collect();
    let weights: Vec<u32> = configured.iter().map(|(_, weight)| *weight).collect();
    // By rank among the usable ones, in proportion to their weights.
    let substitutes = schedule::weighted(&usable.iter().map(|c| c.weight).collect::<Vec<_>>());
    let mut next = 0;
    let mut place = |i: &u32| {
        let position = configured[*i as usize].0;
        if usable.iter().any(|c| c.position == position) {
            return (position, 1);
        }
        next = (next + 1) % substitutes.len();
        (usable[substitutes[next] as usize].position, 1)
    };
    schedule::weighted(&weights).iter().map(&mut place).collect()
}

/// Maglev: the size comes from the servers in the file, the places from those that can take
/// connections.
fn maglev(service: &model::Service, usable: &[Candidate]) -> Vec<(usize, u32)> {
    let members: Vec<Member> = usable
        .iter()
        .map(|c| Member {
            identity: maglev::identity(service.real_servers[c.position].label.as_bytes()),
            weight: c.weight,
        })
        .collect();
    let table = maglev::table(&members, maglev::size(service.real_servers.len()));
    table.iter().map(|i| (usable[*i as usize].position, 1)).collect()
}
