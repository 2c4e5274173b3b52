//! Maglev's consistent hash table, with weights (Eisenbud et al., "Maglev: A Fast and Reliable
//! Software Network Load Balancer", NSDI 2016, §3.4).
//!
//! Every server has its own permutation of the table's places and takes them in turn; a server of
//! half the weight takes a place every other turn. Removing one server leaves nearly all places of
//! the others where they were.

use alloc::{vec, vec::Vec};

/// Smallest table.
pub const SMALLEST: u32 = 1009;
/// Largest table, a prime.
pub const LARGEST: u32 = 65_537;

/// A server, as the table sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Identity that survives reloads: [`identity`] of its label, not its place in the file.
    pub identity: u64,
    /// Relative share; 0 takes nothing.
    pub weight: u32,
}

/// A hash of a label: FNV-1a with 64 bits (Fowler, Noll, Vo; public domain), its bits mixed once
/// more because labels differ mostly in their last byte.
pub const fn identity(label: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut i = 0;
    while i < label.len() {
        hash = (hash ^ label[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    mix(hash)
}

/// The finaliser of SplitMix64 (Vigna; public domain).
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The size of the table for `servers` configured servers: a prime, at least a hundred places for
/// each server. It must come from the configured servers, not from those that are up: a table of
/// another size moves every client.
pub fn size(servers: usize) -> u32 {
    let wanted = (servers as u64 * 100).clamp(SMALLEST as u64, LARGEST as u64) as u32;
    let mut candidate = wanted | 1;
    while !is_prime(candidate) {
        candidate += 2;
    }
    candidate
}

fn is_prime(n: u32) -> bool {
    let mut divisor = 3;
    while divisor * divisor <= n {
        if n.is_multiple_of(divisor) {
            return false;
        }
        divisor += 2;
    }
    n > 2 && !n.is_multiple_of(2)
}

/// Where a member stands in its permutation, and how much of a turn it has saved up.
struct Walk {
    place: u32,
    skip: u32,
    saved: u64,
}

/// The table: for each place the position of a member in `members`. Empty when no member has a
/// weight. `size` is a prime ([`size`]).
pub fn table(members: &[Member], size: u32) -> Vec<u32> {
    let heaviest = members.iter().map(|m| m.weight).max().unwrap_or(0) as u64;
    if heaviest == 0 || size < 2 {
        return Vec::new();
    }
    const FREE: u32 = u32::MAX;
    let mut table = vec![FREE; size as usize];
    let mut walks: Vec<Walk> = members
        .iter()
        .map(|m| Walk {
            place: (mix(m.identity) % size as u64) as u32,
            skip: (mix(m.identity ^ 0x5bd1_e995) % (size as u64 - 1)) as u32 + 1,
            saved: 0,
        })
        .collect();
    let mut filled = 0;
    loop {
        for (position, (walk, member)) in walks.iter_mut().zip(members).enumerate() {
            walk.saved += member.weight as u64;
            if walk.saved < heaviest {
                continue;
            }
            walk.saved -= heaviest;
            while table[walk.place as usize] != FREE {
                walk.place = (walk.place + walk.skip) % size;
            }
            table[walk.place as usize] = position as u32;
            filled += 1;
            if filled == size {
                return table;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    fn members(weights: &[u32]) -> Vec<Member> {
        let label = |i| identity(format!("PACS{i}").as_bytes());
        weights.iter().enumerate().map(|(i, w)| Member { identity: label(i), weight: *w }).collect()
    }

    #[test]
    fn sizes_are_primes_within_bounds() {
        assert_eq!(
            [0, 1, 10, 16, 100, 700, 5000].map(size),
            [1009, 1009, 1009, 1601, 10_007, 65_537, 65_537]
        );
    }

    #[test]
    fn removing_any_of_16_servers_moves_at_most_5_percent_of_the_others() {
        for weights in [[1u32; 16], core::array::from_fn(|i| 50 + 10 * i as u32)] {
            let all = members(&weights);
            let size = size(16);
            let before = table(&all, size);
            for gone in 0..16 {
                let mut rest = all.clone();
                rest[gone].weight = 0;
                let after = table(&rest, size);
                let moved =
                    before.iter().zip(&after).filter(|(b, a)| **b != gone as u32 && b != a).count()
                        as f64;
                assert!(moved / size as f64 <= 0.05, "{gone}: {moved} of {size}");
            }
        }
    }

    #[test]
    fn shares_follow_weights_within_2_percent() {
        for weights in [&[100, 100, 100][..], &[1, 2, 3, 4], &[100, 1, 50, 7], &[65_535, 1], &[9]] {
            let table = table(&members(weights), size(weights.len()));
            let total: u32 = weights.iter().sum();
            for (i, weight) in weights.iter().enumerate() {
                let share = table.iter().filter(|m| **m == i as u32).count() as f64;
                let wanted = *weight as f64 / total as f64;
                let share = share / table.len() as f64;
                assert!((share - wanted).abs() <= 0.02, "{weights:?} {i}: {share} {wanted}");
            }
        }
    }

    #[test]
    fn order_in_the_file_hardly_matters() {
        let all = members(&[1; 8]);
        let mut turned = all.clone();
        turned.reverse();
        let (a, b) = (table(&all, 1009), table(&turned, 1009));
        let same = a.iter().zip(&b).filter(|(a, b)| **a == 7 - **b).count();
        assert!(same > 900, "{same}");
    }

    #[test]
    fn nothing_to_share_among_gives_an_empty_table() {
        assert!(table(&[], 1009).is_empty());
        assert!(table(&members(&[0, 0]), 1009).is_empty());
    }
}
