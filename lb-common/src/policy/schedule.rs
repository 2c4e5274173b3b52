//! Sequences of servers that the data path walks through or points into.

use alloc::{vec, vec::Vec};

/// Longest sequence of [`weighted`].
pub const LONGEST: u32 = 1024;

/// Weighted round robin as a sequence of positions in `weights`, smooth as nginx's
/// (src/http/ngx_http_upstream_round_robin.c): 5, 1, 1 gives a a b a c a a, never a run of five.
///
/// Its length is the sum of the weights over their greatest common divisor; where that is more
/// than [`LONGEST`], the weights are scaled down in proportion, none of them to 0. Positions of
/// weight 0 do not occur.
pub fn weighted(weights: &[u32]) -> Vec<u32> {
    let weights = scaled(weights);
    let total: u64 = weights.iter().sum();
    let mut current = vec![0i64; weights.len()];
    let mut sequence = Vec::with_capacity(total as usize);
    for _ in 0..total {
        let mut best = 0;
        for (i, weight) in weights.iter().enumerate() {
            current[i] += *weight as i64;
            if weights[best] == 0 || (*weight > 0 && current[i] > current[best]) {
                best = i;
            }
        }
        current[best] -= total as i64;
        sequence.push(best as u32);
    }
    sequence
}

/// Weights divided by their greatest common divisor, and further where their sum is too large.
fn scaled(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, *b)).max(1) as u64;
    let weights: Vec<u64> = weights.iter().map(|w| *w as u64 / divisor).collect();
    let total: u64 = weights.iter().sum();
    if total <= LONGEST as u64 {
        return weights;
    }
    weights
        .iter()
        .map(|w| if *w == 0 { 0 } else { ((w * LONGEST as u64 + total / 2) / total).max(1) })
        .collect()
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The weight of a server that came up `elapsed_ms` ago and grows over `slow_start_ms`: from a
/// hundredth to the whole.
pub const fn growing(weight: u32, elapsed_ms: u64, slow_start_ms: u64) -> u32 {
    if elapsed_ms >= slow_start_ms {
        return weight;
    }
    // Below the whole, so the product of two 32-bit factors cannot overflow 64 bits.
    let percent = elapsed_ms as u128 * 100 / slow_start_ms as u128;
    let percent = if percent == 0 { 1 } else { percent as u64 };
    let grown = (weight as u64 * percent).div_ceil(100);
    grown as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sequence_is_smooth() {
        assert_eq!(weighted(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(weighted(&[100, 100]), [0, 1]);
        assert_eq!(weighted(&[0, 3, 0]), [1]);
        assert!(weighted(&[]).is_empty());
        assert!(weighted(&[0]).is_empty());
    }

    #[test]
    fn large_weights_are_scaled_and_none_is_lost() {
        let sequence = weighted(&[65_535, 32_768, 1]);
        assert!(sequence.len() <= LONGEST as usize + 3);
        assert!(sequence.contains(&2));
        let first = sequence.iter().filter(|p| **p == 0).count() as f64;
        let second = sequence.iter().filter(|p| **p == 1).count() as f64;
        assert!((first / second - 2.0).abs() < 0.02);
    }

    #[test]
    fn a_slow_starter_grows_to_its_weight() {
        assert_eq!(growing(100, 0, 60_000), 1);
        assert_eq!(growing(100, 30_000, 60_000), 50);
        assert_eq!(growing(100, 60_000, 60_000), 100);
        assert_eq!(growing(7, 0, 0), 7);
        assert_eq!(growing(1, 1, 2), 1);
        assert_eq!(growing(0, 1, 2), 0);
    }

    proptest! {
        #[test]
        fn every_weight_gets_its_share(weights in prop::collection::vec(0u32..50, 1..12)) {
            let sequence = weighted(&weights);
            let total: u32 = weights.iter().sum();
            for (i, weight) in weights.iter().enumerate() {
                let share = sequence.iter().filter(|p| **p == i as u32).count() as u64;
                prop_assert_eq!(share * total as u64, *weight as u64 * sequence.len() as u64);
            }
        }
    }
}
