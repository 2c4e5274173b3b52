//! Atomic addition to map values. Rust's `AtomicU64::fetch_add` does not exist on BPF, where the
//! target has no compare-and-swap by default; the instruction does (BPF_ATOMIC | BPF_ADD).

use core::arch::asm;

/// Adds one to the counter and gives what it was (BPF_FETCH, Linux 5.12).
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub unsafe fn next(counter: *mut u64) -> u64 {
    let mut value = 1;
    // SAFETY: as in `add`.
    unsafe {
        asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) value, in(reg) counter);
    }
    value
}

/// Adds `by` (two's complement) to the counter.
///
/// # Safety
///
/// `counter` is an aligned pointer into a map value.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, by: i64) {
    // SAFETY: the caller's pointer; the instruction touches those eight bytes only.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) by) };
}
