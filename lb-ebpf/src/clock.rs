//! The time, in ticks (`lb_common::policy::clock`).

use aya_ebpf::helpers::generated::bpf_jiffies64;

use crate::maps;

/// Set by the loader from the kernel's HZ.
#[unsafe(no_mangle)]
static TICK_SHIFT: u32 = 8;

/// Set by tests only: adds `META.test_clock_offset`. In production the verifier removes the branch.
#[unsafe(no_mangle)]
static TEST_CLOCK: u32 = 0;

/// The value of a constant that the loader sets.
#[inline(always)]
pub fn constant(global: &'static u32) -> u32 {
    // SAFETY: a static; volatile because the loader, not the compiler, decides its value.
    unsafe { core::ptr::read_volatile(global) }
}

/// Now, in ticks.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: the helper takes no arguments and cannot fail.
    let ticks = (unsafe { bpf_jiffies64() } >> (constant(&TICK_SHIFT) & 63)) as u32;
    if constant(&TEST_CLOCK) == 0 { ticks } else { ticks.wrapping_add(maps::test_clock_offset()) }
}
