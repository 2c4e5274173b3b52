//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624, equation 3).
//!
//! All values are 16-bit words as they lie in memory: the arithmetic gives the right bytes on
//! machines of either byte order (RFC 1071 §2 B).

/// Folds a sum of 16-bit words to 16 bits with end-around carry.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// What replacing a 32-bit word changes: `~m + m'`, not folded. Sums of these may be folded once.
#[inline(always)]
pub const fn delta32(old: u32, new: u32) -> u64 {
    (!old) as u64 + new as u64
}

/// The same for a 16-bit word.
#[inline(always)]
pub const fn delta16(old: u16, new: u16) -> u64 {
    (!old) as u64 + new as u64
}

/// A checksum field after its data changed by `delta`.
#[inline(always)]
pub const fn update(check: u16, delta: u16) -> u16 {
    let sum = (!check) as u32 + delta as u32;
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// As [`update`], for UDP: 0 means "no checksum" and stays (RFC 768); a result of 0 is sent as
/// its other representation.
#[inline(always)]
pub const fn update_udp(check: u16, delta: u16) -> u16 {
    if check == 0 {
        return 0;
    }
    match update(check, delta) {
        0 => 0xffff,
        sum => sum,
    }
}

/// Sum of the 16-bit words of `bytes`, an odd last byte padded with zero; to be folded and
/// complemented.
pub fn sum(bytes: &[u8]) -> u64 {
    let mut total = 0u64;
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        total += u16::from_ne_bytes([word[0], word[1]]) as u64;
    }
    if let [last] = words.remainder() {
        total += u16::from_ne_bytes([*last, 0]) as u64;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn full(bytes: &[u8]) -> u16 {
        !fold(sum(bytes))
    }

    /// The example of RFC 1071 §3.
    #[test]
    fn rfc_1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)).to_ne_bytes(), [0xdd, 0xf2]);
    }

    proptest! {
        /// The oracle: an incremental update equals recomputation, for any data that is not all
        /// zero (no IP, TCP or UDP pseudo header is).
        #[test]
        fn incremental_equals_recomputed(
            mut data in proptest::collection::vec(any::<u8>(), 2..64).prop_map(|mut v: Vec<u8>| {
                v.truncate(v.len() & !1); v[0] |= 1; v
            }),
            at in any::<prop::sample::Index>(),
            new in any::<u16>(),
        ) {
            let at = at.index(data.len() / 2) * 2;
            prop_assume!(at != 0); // word 0 stays non-zero
            let before = full(&data);
            let old = u16::from_ne_bytes([data[at], data[at + 1]]);
            data[at..at + 2].copy_from_slice(&new.to_ne_bytes());
            prop_assert_eq!(update(before, fold(delta16(old, new))), full(&data));
        }

        #[test]
        fn udp_zero_is_untouched_and_never_made(check in any::<u16>(), delta in any::<u16>()) {
            prop_assert_eq!(update_udp(0, delta), 0);
            if check != 0 {
                prop_assert_ne!(update_udp(check, delta), 0);
            }
        }
    }
}
