//! Ticks: the data path's coarse clock.
//!
//! A tick is a power of two of jiffies, close to a second: the kernel's jiffies counter is one
//! load for an XDP program (`bpf_jiffies64` is inlined, kernel/bpf/verifier.c), where
//! `bpf_ktime_get_coarse_ns` is a call and a division.

/// The shift that makes a tick of jiffies, for a kernel with `hz` timer interrupts a second: the
/// largest power of two that is at most a quarter more than a second.
pub const fn tick_shift(hz: u32) -> u32 {
    let limit = hz + hz / 4;
    let mut shift = 0;
    while (2u32 << shift) <= limit {
        shift += 1;
    }
    shift
}

/// Milliseconds to ticks, rounded up, and one more because the first tick may be nearly over: a
/// flow never expires early.
pub const fn ticks_from_ms(ms: u64, hz: u32, shift: u32) -> u32 {
    let jiffies = (ms * hz as u64).div_ceil(1000);
    let ticks = jiffies.div_ceil(1 << shift) + 1;
    if ticks > (u32::MAX / 2) as u64 { u32::MAX / 2 } else { ticks as u32 }
}

/// Ticks to milliseconds.
pub const fn ms_from_ticks(ticks: u32, hz: u32, shift: u32) -> u64 {
    ((ticks as u64) << shift) * 1000 / hz as u64
}

/// Ticks from `since` to `now`, right also when the counter has wrapped around; a `since` in the
/// future (another CPU was quicker) counts as now.
#[inline(always)]
pub const fn age(now: u32, since: u32) -> u32 {
    let age = now.wrapping_sub(since);
    if age > u32::MAX / 2 { 0 } else { age }
}

/// Whether something last seen at `last_seen` has been idle for more than `timeout` ticks.
#[inline(always)]
pub const fn expired(now: u32, last_seen: u32, timeout: u32) -> bool {
    age(now, last_seen) > timeout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_about_a_second_for_every_hz() {
        assert_eq!([100, 250, 300, 1000].map(tick_shift), [6, 8, 8, 10]);
        for hz in [100u32, 250, 300, 1000] {
            let ms = ms_from_ticks(1000, hz, tick_shift(hz));
            assert!((600_000..=1_250_000).contains(&ms), "{hz}: {ms}");
        }
    }

    #[test]
    fn a_flow_never_expires_early() {
        for hz in [100u32, 250, 300, 1000] {
            let shift = tick_shift(hz);
            for ms in [1u64, 999, 1000, 60_000, 7_440_000] {
                let ticks = ticks_from_ms(ms, hz, shift);
                assert!(ms_from_ticks(ticks - 1, hz, shift) >= ms);
                assert!(!expired(ticks, 0, ticks));
                assert!(expired(ticks + 1, 0, ticks));
            }
        }
    }

    #[test]
    fn age_survives_wrap_around_and_other_cpus() {
        assert_eq!(age(5, u32::MAX - 4), 10);
        assert_eq!(age(100, 101), 0);
    }
}
