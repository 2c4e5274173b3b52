//! Loops that the verifier need not unroll: `bpf_loop` (Linux 5.17) has it look at the body once.
//! From 5.18 on the call is inlined.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::helpers::generated::bpf_loop;

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another turn.
    Again,
    /// Enough.
    Stop,
}

/// A loop's body and what it carries from turn to turn.
pub trait Turn {
    /// One turn.
    fn turn(&mut self) -> Next;
}

/// Takes at most `most` turns.
#[inline(always)]
pub fn up_to<T: Turn>(most: u32, state: &mut T) {
    let state: *mut T = state;
    // SAFETY: `step` gets back the pointer that is passed here, while `state` is borrowed.
    let mut turns = unsafe { bpf_loop(most, step::<T> as *mut c_void, state.cast(), 0) };
    // LLVM would make one call of two that follow a branch, and the kernel does not inline a call with
    // two bodies. One instruction that is each body's own prevents that.
    // SAFETY: a register is copied to itself.
    unsafe { asm!("/* {1} */", "{0} = {0}", inout(reg) turns, sym step::<T>) };
    let _ = turns;
}

extern "C" fn step<T: Turn>(_index: u64, state: *mut c_void) -> i64 {
    // SAFETY: `up_to` passes a `T` that it borrows exclusively.
    match unsafe { &mut *state.cast::<T>() }.turn() {
        Next::Again => 0,
        Next::Stop => 1,
    }
}
