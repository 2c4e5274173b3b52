//! DR connections that have not opened yet, in buckets of an array. What is done in a bucket is in
//! `lb_common::policy::opening`; here are its lock and its time. Whoever puts a connection in or takes
//! it out counts it, under the lock's protection once and no more, in `Connections::pending`.

use core::marker::PhantomData;

use lb_common::{
    abi::{Addr as _, Bucket, FlowKey, Hop, Opening},
    policy::{
        clock::expired,
        opening,
        tcp::{self, state},
    },
};

use crate::{
    atomic, clock,
    family::{Family, V4, V6},
    maps::{self, Draft},
    step::record,
};

/// Bit 0 of `Bucket::lock`.
const HELD: u64 = 1;
/// How often a bucket is asked for that another CPU holds: microseconds, where the other needs less
/// than one, unless its virtual CPU was taken from it. Not a loop of `iterate`: on Linux 6.1, which
/// rounds every frame up to 32 bytes, the stack has no room for one frame more.
const TRIES: u32 = 64;

/// The bucket stayed locked.
pub struct Busy;

/// A bucket that is held. Every way out of a function that has one calls [`Held::release`]: Rust's
/// `Drop` would do it too, but not so that the verifier can be shown where.
struct Held<F: Family> {
    bucket: *mut Bucket<F::A>,
    family: PhantomData<F>,
}

impl<F: Family> Held<F> {
    #[inline(always)]
    fn take(key: &FlowKey<F::A>) -> Result<Self, Busy> {
        let bucket = F::bucket(opening::hash(key)).ok_or(Busy)?; // never: the map has every bucket
        // SAFETY: a field of the map value that the look-up gave.
        let lock = unsafe { &raw mut (*bucket).lock };
        let mut turn = 0;
        while turn < TRIES {
            // SAFETY: as above.
            let taken = unsafe {
                let free = lock.read_volatile() & !HELD;
                atomic::compare_exchange(lock, free, free | HELD) == free
            };
            if taken {
                return Ok(Self { bucket, family: PhantomData });
            }
            turn += 1;
        }
        Err(Busy)
    }

    #[inline(always)]
    fn bucket(&mut self) -> &mut Bucket<F::A> {
        // SAFETY: the look-up gave the pointer in this run of the program, and while the lock is
        // held no other CPU has a reference.
        unsafe { &mut *self.bucket }
    }

    #[inline(always)]
    fn release(self) {
        // SAFETY: the lock is a field of the map value, and ours.
        unsafe {
            let lock = &raw mut (*self.bucket).lock;
            atomic::exchange(lock, lock.read_volatile() & !HELD);
        }
    }
}

/// What became of a search.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The flow is in the draft.
    Yes,
    /// There is no such connection, or no longer.
    No,
    /// The bucket stayed locked.
    Busy,
}

/// The steps in a bucket, of one IP version.
pub trait Openings: Family {
    /// Leaves the flow of a half-open connection in the draft. `touch`: a packet of it is here.
    fn find(key: &FlowKey<Self::A>, touch: bool) -> Found;
    /// Records a connection to a real server that begins now; `false`: the bucket stayed locked. An
    /// older one makes way when the bucket is full.
    fn insert(key: &FlowKey<Self::A>, real: u32) -> bool;
    /// Forgets a connection, or notes that it was reset. It is pending no longer.
    fn end(key: &FlowKey<Self::A>, reset: bool);
}

/// Global functions, which the verifier looks at once (`cold`). Their key is handed over in the draft.
macro_rules! openings {
    ($family:ty, $find:ident, $insert:ident, $end:ident) => {
        impl Openings for $family {
            #[inline(always)]
            fn find(key: &FlowKey<Self::A>, touch: bool) -> Found {
                hand::<$family>(key);
                match $find(touch as u32) {
                    0 => Found::No,
                    1 => Found::Yes,
                    _ => Found::Busy,
                }
            }

            #[inline(always)]
            fn insert(key: &FlowKey<Self::A>, real: u32) -> bool {
                hand::<$family>(key);
                $insert(real) != 0
            }

            #[inline(always)]
            fn end(key: &FlowKey<Self::A>, reset: bool) {
                hand::<$family>(key);
                $end(reset as u32);
            }
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $find(touch: u32) -> u64 {
            match find::<$family>(touch != 0) {
                Ok(found) => found as u64,
                Err(Busy) => 2,
            }
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $insert(real: u32) -> u64 {
            insert::<$family>(real).is_ok() as u64
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $end(reset: u32) -> u64 {
            end::<$family>(reset != 0).is_ok() as u64
        }
    };
}

openings!(V4, opening_find_v4, opening_insert_v4, opening_end_v4);
openings!(V6, opening_find_v6, opening_insert_v6, opening_end_v6);

#[inline(always)]
fn hand<F: Family>(key: &FlowKey<F::A>) {
    if let Some(Draft { back, .. }) = F::draft() {
        back.src.put(&key.src);
        back.dst.put(&key.dst);
        back.sport = key.sport;
        back.dport = key.dport;
    }
}

#[inline(always)]
fn find<F: Family>(touch: bool) -> Result<bool, Busy> {
    let Draft { flow, back: key, .. } = F::draft().ok_or(Busy)?;
    let now = clock::now();
    let mut held = Held::<F>::take(key)?;
    let mut found = false;
    if let Some(place) = opening::find(held.bucket(), key)
        && let Some((real, state)) = Opening::<F::A>::real_and_state(place.server)
        && !silent(real, state, place.last_seen, now)
    {
        flow.real = real;
        flow.state = state;
        flow.flags = 0;
        flow.created = place.created;
        flow.last_seen = place.last_seen;
        if touch {
            place.last_seen = now;
        }
        found = true;
    }
    held.release();
    flow.hop = Hop::default();
    Ok(found)
}

/// Whether a connection has been silent for too long.
#[inline(always)]
fn silent(real: u32, state: u8, last_seen: u32, now: u32) -> bool {
    let Some(real) = maps::real(real) else { return true };
    let Some(service) = maps::service(real.service) else { return true };
    expired(now, last_seen, tcp::timeout(state, service))
}

#[inline(always)]
fn insert<F: Family>(real: u32) -> Result<(), Busy> {
    let Draft { back: key, .. } = F::draft().ok_or(Busy)?;
    let now = clock::now();
    let server = Opening::<F::A>::server(real, state::OPENING);
    let mut held = Held::<F>::take(key)?;
    // First: the next CPU here may take it out at once.
    record::add_pending(real, 1);
    let (old, last_seen) = opening::insert(held.bucket(), key, server, now);
    held.release();
    // What is silent the sweeper's recount has forgotten already.
    if let Some((real, state::OPENING)) = Opening::<F::A>::real_and_state(old)
        && !silent(real, state::OPENING, last_seen, now)
    {
        record::add_pending(real, -1);
    }
    Ok(())
}

/// When the bucket stays locked, the connection is silent from now on, and expires.
#[inline(always)]
fn end<F: Family>(reset: bool) -> Result<(), Busy> {
    let Draft { back: key, .. } = F::draft().ok_or(Busy)?;
    let mut held = Held::<F>::take(key)?;
    let mut old = 0;
    if let Some(place) = opening::find(held.bucket(), key) {
        old = place.server;
        place.server = match Opening::<F::A>::real_and_state(old) {
            Some((real, _)) if reset => Opening::<F::A>::server(real, state::RESET),
            _ => 0,
        };
    }
    held.release();
    if let Some((real, state::OPENING)) = Opening::<F::A>::real_and_state(old) {
        record::add_pending(real, -1);
    }
    Ok(())
}
