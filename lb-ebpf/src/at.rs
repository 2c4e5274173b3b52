//! The one door to the packet: every pointer into it is made here, with its bounds check.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_get_buff_len};

/// The frame as it lies now. Made anew after every helper that moves its ends.
#[derive(Clone, Copy)]
pub struct Frame {
    data: usize,
    end: usize,
}

impl Frame {
    /// The bounds of the frame that `ctx` describes.
    #[inline(always)]
    pub fn new(ctx: *mut xdp_md) -> Self {
        // Volatile: LLVM would otherwise load the 32-bit fields in a caller and pass them on as
        // numbers, which the verifier no longer takes for packet pointers (6.18, LLVM 22).
        // SAFETY: the kernel hands every XDP program a valid context.
        unsafe {
            Self {
                data: (&raw const (*ctx).data).read_volatile() as usize,
                end: (&raw const (*ctx).data_end).read_volatile() as usize,
            }
        }
    }

    /// Length of the linear part, in bytes. Headers lie in it; a jumbo frame may go on elsewhere.
    #[inline(always)]
    pub fn length(&self) -> usize {
        self.end - self.data
    }

    /// The header of type `T` at `offset` bytes, if the frame is long enough.
    ///
    /// Callers do not ask twice for bytes that overlap while they hold the first reference.
    #[inline(always)]
    pub fn at<'a, T>(&self, offset: usize) -> Option<&'a mut T> {
        let start = self.data + offset;
        if start + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the bytes lie inside the frame, which lives as long as the program runs, and
        // header types have no invalid bit patterns. Their 32-bit fields lie at odd multiples of
        // two: every machine with a BPF JIT reads those, and the verifier allows it for packets
        // (NET_IP_ALIGN).
        Some(unsafe { &mut *(start as *mut T) })
    }
}

/// Length of the whole frame, in bytes: of a jumbo frame also what lies outside the linear part.
/// Not inlined: a call to the kernel, which the fast path does without.
#[inline(never)]
pub fn whole_length(ctx: *mut xdp_md) -> u64 {
    // SAFETY: the kernel hands every XDP program a valid context.
    unsafe { bpf_xdp_get_buff_len(ctx) }
}
