//! Atomic addition to map values. Rust's `AtomicU64::fetch_add` does not exist on BPF, where the
//! target has no compare-and-swap by default; the instruction does (BPF_ATOMIC | BPF_ADD).

use core::arch::asm;

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
