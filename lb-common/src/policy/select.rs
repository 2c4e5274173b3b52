//! Choosing among slots.

/// Whether a server with `a_load` connections and `a_weight` has less to do for its weight than
/// the other one. Weights are not 0, loads are below 2³².
#[inline(always)]
pub const fn lighter(a_load: u64, a_weight: u32, b_load: u64, b_weight: u32) -> bool {
    a_load.wrapping_mul(b_weight as u64) < b_load.wrapping_mul(a_weight as u64)
}

/// A well-mixed hash of an address ([`crate::abi::Addr::folded`]): the finaliser of MurmurHash3
/// (public domain, Austin Appleby).
#[inline(always)]
pub const fn hash(folded: u32) -> u32 {
    let mut h = folded;
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^= h >> 16;
    h
}

/// A hash mapped onto `0..count` without a division (`reciprocal_scale` in include/linux/kernel.h).
#[inline(always)]
pub const fn scale(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lighter_is_strict_and_weighted() {
        assert!(lighter(1, 2, 1, 1));
        assert!(!lighter(2, 2, 1, 1));
        assert!(!lighter(0, 1, 0, 9));
        assert!(lighter(1 << 31, u32::MAX, 1 << 32, u32::MAX));
    }

    #[test]
    fn consecutive_addresses_spread_evenly() {
        let mut seen = [0u32; 16];
        for address in 0x0a0c_0100u32..0x0a0c_0100 + 16_000 {
            seen[scale(hash(address.to_be()), 16) as usize] += 1;
        }
        assert!(seen.iter().all(|n| (850..1150).contains(n)), "{seen:?}");
    }
}
