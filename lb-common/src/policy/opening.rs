//! Places for connections that have not opened yet. The caller holds the bucket's lock.

use core::hint::black_box;

use crate::abi::{Addr, Bucket, FlowKey, Opening, PLACES};

/// A well-mixed hash of a key: which bucket it belongs to.
#[inline(always)]
pub fn hash<A: Addr>(key: &FlowKey<A>) -> u32 {
    let ports = (key.sport.raw() as u32) << 16 | key.dport.raw() as u32;
    let mut h = key.src.folded() as u64 | (ports as u64) << 32;
    h ^= (key.dst.folded() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The finaliser of MurmurHash3 (public domain, Austin Appleby).
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (h >> 32) as u32
}

/// The place of a connection.
#[inline(always)]
pub fn find<'a, A: Addr>(
    bucket: &'a mut Bucket<A>,
    key: &FlowKey<A>,
) -> Option<&'a mut Opening<A>> {
    let mut places = bucket.places.iter_mut();
    places.find(|place| place.server != 0 && same(&place.key, key))
}

/// Puts a connection in: in its own old place, in an empty one, or in that of the one whose turn it
/// is, which is never the one that came last. Returns [`Opening::server`] and `last_seen` of what was
/// there.
///
/// Loops that end where they find something: one that weighs all places makes more states
/// than the verifier has patience for.
#[inline(always)]
pub fn insert<A: Addr>(
    bucket: &mut Bucket<A>,
    key: &FlowKey<A>,
    server: u32,
    now: u32,
) -> (u32, u32) {
    // `black_box`: LLVM would compare some other form of the number, and the verifier would not know
    // that this one is small (6.18, LLVM 22).
    let turn = black_box((bucket.lock >> 1) as usize & 7).min(PLACES - 1);
    for (at, place) in bucket.places.iter_mut().enumerate() {
        if place.server != 0 && same(&place.key, key) {
            bucket.lock = behind(bucket.lock, at);
            return put(place, key, server, now);
        }
    }
    for (at, place) in bucket.places.iter_mut().enumerate() {
        if place.server == 0 {
            bucket.lock = behind(bucket.lock, at);
            return put(place, key, server, now);
        }
    }
    match bucket.places.get_mut(turn) {
        Some(place) => {
            bucket.lock = behind(bucket.lock, turn);
            put(place, key, server, now)
        }
        None => (0, 0), // never: see `turn`
    }
}

/// The lock's word when the place at `at` was taken last.
#[inline(always)]
fn behind(lock: u64, at: usize) -> u64 {
    let next = if at + 1 < PLACES { at as u64 + 1 } else { 0 };
    next << 1 | lock & 1
}

#[inline(always)]
fn put<A: Addr>(place: &mut Opening<A>, key: &FlowKey<A>, server: u32, now: u32) -> (u32, u32) {
    let old = (place.server, place.last_seen);
    place.key.src.put(&key.src);
    place.key.dst.put(&key.dst);
    place.key.sport = key.sport;
    place.key.dport = key.dport;
    place.server = server;
    place.created = now;
    place.last_seen = now;
    old
}

#[inline(always)]
fn same<A: Addr>(a: &FlowKey<A>, b: &FlowKey<A>) -> bool {
    a.sport == b.sport && a.dport == b.dport && a.src.same(&b.src) && a.dst.same(&b.dst)
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, vec, vec::Vec};

    use proptest::prelude::*;

    use super::{find, hash};
    use crate::abi::{AddrV4, AddrV6, Be16, Be32, Bucket, FlowKey, Opening, PLACES};
    use crate::policy::tcp::state;

    fn opening(port: u16, now: u32) -> Opening<AddrV4> {
        let key = FlowKey { sport: Be16::new(port), dport: Be16::new(104), ..FlowKey::default() };
        let server = Opening::<AddrV4>::server(port as u32, state::OPENING);
        Opening { key, server, created: now, last_seen: now }
    }

    fn insert(bucket: &mut Bucket<AddrV4>, new: &Opening<AddrV4>) -> (u32, u32) {
        super::insert(bucket, &new.key, new.server, new.created)
    }

    fn ports(bucket: &Bucket<AddrV4>) -> Vec<u16> {
        let mut ports: Vec<_> = bucket
            .places
            .iter()
            .filter(|place| place.server != 0)
            .map(|place| place.key.sport.get())
            .collect();
        ports.sort_unstable();
        ports
    }

    #[test]
    fn when_all_places_are_taken_each_makes_way_in_turn_and_the_newest_last() {
        let mut bucket = Bucket::default();
        for port in 1..=5 {
            assert_eq!(insert(&mut bucket, &opening(port, 100)), (0, 0));
        }
        let old: Vec<_> = (6..=9).map(|port| insert(&mut bucket, &opening(port, 101)).0).collect();
        let reals = old.into_iter().map(|s| Opening::<AddrV4>::real_and_state(s).unwrap().0);
        assert_eq!(reals.collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(ports(&bucket), [5, 6, 7, 8, 9]);
        // In an empty place: now this one is the newest.
        find(&mut bucket, &opening(7, 0).key).unwrap().server = 0;
        insert(&mut bucket, &opening(10, 102));
        for port in 11..15 {
            insert(&mut bucket, &opening(port, 102));
        }
        assert_eq!(ports(&bucket), [10, 11, 12, 13, 14]);
    }

    #[test]
    fn a_connection_has_one_place_and_an_empty_one_is_taken_first() {
        let mut bucket = Bucket::default();
        for port in 1..=5 {
            insert(&mut bucket, &opening(port, 100));
        }
        let again = opening(3, 200);
        assert_eq!(insert(&mut bucket, &again), (opening(3, 100).server, 100));
        assert_eq!(find(&mut bucket, &again.key), Some(&mut { again }));
        find(&mut bucket, &opening(4, 0).key).unwrap().server = 0;
        assert_eq!(find(&mut bucket, &opening(4, 0).key), None);
        assert_eq!(insert(&mut bucket, &opening(9, 200)), (0, 100));
        assert_eq!(ports(&bucket), [1, 2, 3, 5, 9]);
    }

    #[test]
    fn zeros_are_an_empty_place_and_any_bytes_are_something() {
        let mut empty = Bucket::<AddrV6>::default();
        assert_eq!(find(&mut empty, &FlowKey::default()), None);
        assert_eq!(Opening::<AddrV4>::real_and_state(0), None);
        for state in 0..=state::RESET {
            let server = Opening::<AddrV4>::server(16_383, state);
            assert_eq!(Opening::<AddrV4>::real_and_state(server), Some((16_383, state)));
        }
        let mut odd = Bucket { lock: u64::MAX, places: [opening(1, 0); PLACES] };
        insert(&mut odd, &opening(2, 0));
        assert_eq!(odd.lock & 1, 1, "the lock stays as it is");
    }

    #[test]
    fn neighbouring_clients_spread_evenly() {
        let mut seen = vec![0u32; 1024];
        for n in 0u32..32_768 {
            let mut key = opening(n as u16, 0).key;
            key.src = AddrV4(Be32::new(0x0a0c_0000 + n / 4096));
            seen[hash(&key) as usize % 1024] += 1;
        }
        assert!(seen.iter().all(|n| (8..72).contains(n)), "{seen:?}");
    }

    proptest! {
        /// Whatever comes, a connection that is found is the one that was put in.
        #[test]
        fn what_is_found_is_what_was_last_put_in(
            steps in prop::collection::vec((0u16..12, 0u32..4, any::<bool>()), 0..200),
        ) {
            let mut bucket = Bucket::default();
            let mut model = BTreeMap::new();
            let mut now = 0;
            for (port, pause, leaves) in steps {
                now += pause;
                let new = opening(port, now);
                if leaves {
                    if let Some(place) = find(&mut bucket, &new.key) {
                        place.server = 0;
                    }
                    model.remove(&port);
                } else {
                    insert(&mut bucket, &new);
                    model.insert(port, new);
                    prop_assert_eq!(find(&mut bucket, &new.key), Some(&mut { new }));
                }
                for port in 0..12 {
                    if let Some(found) = find(&mut bucket, &opening(port, 0).key) {
                        prop_assert_eq!(Some(&*found), model.get(&port));
                    }
                }
                prop_assert!(bucket.lock >> 1 < PLACES as u64);
            }
        }
    }
}
