//! Atomic operations on map values. Rust's `AtomicU64` has none on BPF, where the
//! target has no compare-and-swap by default; the instructions exist (BPF_ATOMIC).

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

/// Writes `new` if the word is `old`; returns what it was. Linux 5.12; a full barrier.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let was;
    // SAFETY: as in `add`.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({0} + 0, r0, {1})",
            in(reg) word, in(reg) new, inout("r0") old => was,
        );
    }
    was
}

/// Writes `new`. Linux 5.12; a full barrier, unlike a plain store.
///
/// # Safety
///
/// As for [`add`].
#[inline(always)]
pub unsafe fn exchange(word: *mut u64, new: u64) {
    // SAFETY: as in `add`.
    unsafe { asm!("{1} = xchg_64({0} + 0, {1})", in(reg) word, inout(reg) new => _) };
}
