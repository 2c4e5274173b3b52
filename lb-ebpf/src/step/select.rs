//! Which real server takes a new connection.

use lb_common::{
    abi::{
        Addr, CONNECTIONS_OVERLOADED, NO_REAL, PersistKey, Persistence, Real, Select, Service,
        Slot, Verdict, real_flags, service_flags,
    },
    policy::{
        clock::expired,
        select::{hash, lighter, scale},
    },
};

use crate::{
    atomic,
    family::Family,
    iterate::{self, Next, Turn},
    maps,
};

/// How many slots are looked at for the least loaded server. More than this many servers in one
/// service are searched in part, from a place that moves.
const SCAN: u32 = 256;
/// How many slots behind the chosen one are tried when it cannot take the connection.
const TRIES: u32 = 32;

/// The index of the real server that a client's address points at, without any state: what is left
/// to DR when the table is full.
#[inline(always)]
pub fn stateless<F: Family>(service: &Service, client: F::A) -> Option<u32> {
    let count = service.slots_count;
    let start = scale(hash(client.folded()), count);
    let mut search = Search::at(service, start);
    iterate::up_to(count.min(TRIES), &mut search);
    if search.best != NO_REAL { Some(search.best) } else { None }
}

/// The index of the real server for a new connection of `client`. Renews persistence.
#[inline(always)]
pub fn choose<F: Family>(
    index: u32,
    service: &Service,
    client: F::A,
    now: u32,
) -> Result<u32, Verdict> {
    if service.flags & service_flags::PERSISTENT == 0 {
        return schedule(index, service, client).ok_or(Verdict::NoUsableServer);
    }
    let key = PersistKey { service: index, client: client.masked(&service.persist_mask) };
    if let Some(entry) = F::persist(&key) {
        // SAFETY: the look-up gave the pointer; the sweeper's removal at worst wastes the write.
        let entry = unsafe { &mut *entry };
        if !expired(now, entry.renewed, service.persist) && keeps(index, entry.real) {
            entry.renewed = now;
            return Ok(entry.real);
        }
    }
    let real = schedule(index, service, client).ok_or(Verdict::NoUsableServer)?;
    if real != service.fallback {
        F::persist_insert(&key, &Persistence { real, renewed: now });
    }
    Ok(real)
}

/// Whether a persistent client's server takes it again.
#[inline(always)]
fn keeps(service: u32, index: u32) -> bool {
    let Some(real) = maps::real(index) else { return false };
    real.service == service
        && real.flags & (real_flags::ACCEPT | real_flags::ACCEPT_PERSISTENT) != 0
        && has_room(index, real)
}

/// By the service's scheduler, else the fallback server.
#[inline(always)]
fn schedule<A: Addr>(index: u32, service: &Service, client: A) -> Option<u32> {
    let count = service.slots_count;
    if count != 0 {
        let start = match service.select {
            Select::LEAST | Select::CURSOR => advance(index) % count,
            Select::HASH => scale(hash(client.folded()), count),
            _ => 0, // Select::FIRST
        };
        let mut search = Search::at(service, start);
        if service.select == Select::LEAST {
            iterate::up_to(count.min(SCAN), Least::of(&mut search));
        } else {
            iterate::up_to(count.min(TRIES), &mut search);
        }
        if search.best != NO_REAL {
            return Some(search.best);
        }
    }
    if service.fallback != NO_REAL { Some(service.fallback) } else { None }
}

/// Moves the service's cursor and gives its old place.
#[inline(always)]
fn advance(index: u32) -> u32 {
    let Some(cursor) = maps::cursor(index) else { return 0 };
    // SAFETY: the map value that the look-up gave. Two CPUs may read the same place: no harm.
    unsafe {
        let place = *cursor as u32;
        atomic::add(cursor, 1);
        place
    }
}

/// A walk over a service's slots; each turn looks at one.
struct Search {
    first: u32,
    count: u32,
    place: u32,
    best: u32,
    best_weight: u32,
    best_load: u64,
}

impl Search {
    #[inline(always)]
    fn at(service: &Service, place: u32) -> Self {
        Self {
            first: service.slots_first,
            count: service.slots_count,
            place,
            best: NO_REAL,
            best_load: 0,
            best_weight: 1,
        }
    }

    #[inline(always)]
    fn next(&mut self) -> Option<&'static Slot> {
        let slot = maps::slot(self.first.wrapping_add(self.place));
        self.place += 1;
        if self.place >= self.count {
            self.place = 0;
        }
        slot
    }
}

/// The first slot whose server can take the connection.
impl Turn for Search {
    #[inline(always)]
    fn turn(&mut self) -> Next {
        let Some(slot) = self.next() else { return Next::Stop };
        if usable(slot) {
            self.best = slot.real;
            return Next::Stop;
        }
        Next::Again
    }
}

/// The slot with the least to do for its weight; ties go to the one nearest behind the cursor.
#[repr(transparent)]
struct Least(Search);

impl Least {
    #[inline(always)]
    fn of(search: &mut Search) -> &mut Self {
        // SAFETY: repr(transparent).
        unsafe { &mut *core::ptr::from_mut(search).cast() }
    }
}

impl Turn for Least {
    #[inline(always)]
    fn turn(&mut self) -> Next {
        let Some(slot) = self.0.next() else { return Next::Stop };
        let load = load(slot.real);
        if (self.0.best == NO_REAL
            || lighter(load, slot.weight, self.0.best_load, self.0.best_weight))
            && usable(slot)
        {
            self.0.best = slot.real;
            self.0.best_load = load;
            self.0.best_weight = slot.weight;
        }
        Next::Again
    }
}

/// Connections that a server has, half-open ones included: they will be established before the
/// next decision as a rule.
#[inline(always)]
fn load(index: u32) -> u64 {
    match maps::connections(index) {
        // SAFETY: a plain read of two counters that others add to; either value will do.
        Some(c) => unsafe { (*c).active.wrapping_add((*c).pending) },
        None => u64::MAX,
    }
}

#[inline(always)]
fn usable(slot: &Slot) -> bool {
    let Some(real) = maps::real(slot.real) else { return false };
    // Without a next hop it could not be reached: another one, as long as there is one.
    const ABLE: u32 = real_flags::ACCEPT | real_flags::NEIGHBOUR;
    real.flags & ABLE == ABLE && has_room(slot.real, real)
}

/// `maximum_connections` takes a server out until it has fallen to `minimum_connections`, as
/// IPVS's thresholds do (net/netfilter/ipvs/ip_vs_conn.c, ip_vs_bind_dest).
#[inline(always)]
fn has_room(index: u32, real: &Real) -> bool {
    if real.maximum_connections == 0 {
        return true;
    }
    let Some(connections) = maps::connections(index) else { return false };
    let load = load(index);
    // SAFETY: a flag that several CPUs may set to the same value.
    let overloaded = unsafe { &mut (*connections).overloaded };
    if load >= real.maximum_connections as u64 {
        *overloaded = CONNECTIONS_OVERLOADED;
    } else if *overloaded == 0 {
        return true;
    } else if load <= real.minimum_connections as u64 || real.minimum_connections == 0 {
        *overloaded = 0;
    }
    *overloaded == 0
}
