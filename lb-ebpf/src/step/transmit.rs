//! Out of the interface, or back out of the one that the packet came in by.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use lb_common::abi::Verdict;

use crate::{maps, step::vlan};

/// Where a packet leaves.
#[derive(Clone, Copy)]
pub struct Way {
    /// The kernel's interface index.
    pub ifindex: u32,
    /// The index in `TX_PORTS`, below 64.
    pub interface: u32,
    /// `lb_common::abi::Tags` that the frame leaves with.
    pub tags: u32,
}

/// Marks `Ok` in the packed form.
const OK: u64 = 1 << 63;

impl Way {
    /// A result in one register: what a BPF function can return.
    #[inline(always)]
    pub fn pack(result: Result<Self, Verdict>) -> u64 {
        match result {
            Ok(way) => {
                OK | (way.tags as u64 & 0xff_ffff) << 38
                    | (way.interface as u64 & 0x3f) << 32
                    | way.ifindex as u64
            }
            Err(verdict) => verdict as u64,
        }
    }

    /// The inverse of [`Way::pack`].
    #[inline(always)]
    pub fn unpack(packed: u64) -> Result<Self, Verdict> {
        if packed & OK != 0 {
            Ok(Self {
                ifindex: packed as u32,
                interface: (packed >> 32) as u32 & 0x3f,
                tags: (packed >> 38) as u32 & 0xff_ffff,
            })
        } else {
            // SAFETY: `pack` put a verdict's number there.
            Err(unsafe { core::mem::transmute::<u32, Verdict>(packed as u32) })
        }
    }
}

/// What a cold step returns when the draft holds the packet's flow, ready to be forwarded.
pub const DRAFTED: u64 = OK;

/// The low byte of what a cold step returns when the next one must judge. No verdict has this
/// number.
pub const UNKNOWN: u64 = 0xff;

/// Above `UNKNOWN`, from this bit on: the index of the packet's service plus one, or 0.
pub const SERVICE: u32 = 8;

/// What `open::choose` returns when `outbound::choose` must judge. No verdict has this number.
pub const OUTBOUND: u64 = 0xfe;

/// Marks the index of a chosen real server. No verdict has this bit.
pub const CHOSEN: u64 = 1 << 32;

/// Beside `CHOSEN`: TCP in DR mode.
pub const DIRECT: u64 = 1 << 33;

/// The result of a cold step: the draft is ready, or a verdict.
#[inline(always)]
pub fn drafted(packed: u64) -> Result<(), Verdict> {
    Way::unpack(packed).map(|_| ())
}

/// Packs the result of a cold step.
#[inline(always)]
pub fn pack(result: Result<(), Verdict>) -> u64 {
    match result {
        Ok(()) => DRAFTED,
        Err(verdict) => verdict as u64,
    }
}

/// Sends the packet: one-arm by reflection, two-arm through the device map.
#[inline(always)]
pub fn send<const FRAGS: bool>(ctx: *mut xdp_md, way: Way) -> Result<u32, Verdict> {
    if way.tags != 0 && !vlan::put(ctx, way.tags) {
        return Err(Verdict::AdjustFailed);
    }
    // SAFETY: the kernel hands every XDP program a valid context.
    if way.ifindex == unsafe { (*ctx).ingress_ifindex } {
        return Ok(xdp_action::XDP_TX);
    }
    maps::redirect::<FRAGS>(way.interface)
}
