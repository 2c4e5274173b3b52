//! What medlb is measured against and with; never installed.
//!
//! `mac_swap` is the yardstick: the least that a load balancer in DR mode must do. `shim` writes
//! the packet's headers back to what they were and calls the program in `NEXT`, because
//! PROG_TEST_RUN does not restore a packet between repeats. `nothing` in `NEXT` gives the shim's
//! own cost.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::Array,
    macros::{btf_map, map, xdp},
    maps::ProgramArray,
    programs::XdpContext,
};

/// Bytes of `Settings::original`: Ethernet, IPv6 and TCP headers, rounded up.
const HEADERS: usize = 76;
/// Ethernet, IPv4 and TCP headers.
const V4: usize = 54;
/// Ethernet, IPv6 and TCP headers.
const V6: usize = 74;
/// What the shim does; `tests::bench` fills it.
#[repr(C)]
struct Settings {
    /// How many flows to go round: a power of two.
    flows: u32,
    /// From one flow to the next: an odd number, so that the round visits every flow.
    stride: u32,
    /// Not 0: the frame is IPv6.
    v6: u32,
    /// The headers.
    original: [u8; HEADERS],
}

#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();

/// Where the round is.
#[btf_map]
static ROUND: Array<u32, 1> = Array::new();

#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Exchanges the MAC addresses and reflects the frame.
#[xdp(frags)]
pub fn mac_swap(ctx: XdpContext) -> u32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + 14 > end {
        return xdp_action::XDP_DROP;
    }
    // SAFETY: fourteen bytes were checked.
    unsafe {
        let mac = data as *mut [u16; 3];
        core::ptr::swap(mac, mac.add(1));
    }
    xdp_action::XDP_TX
}

/// Does nothing. With `frags`, like all that is called from a program with `frags`.
#[xdp(frags)]
pub fn nothing(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// Restores the headers, adds the next flow's number to the source address and port, and goes on to
/// `NEXT`. Checksums are not mended: medlb only updates them.
#[xdp(frags)]
pub fn shim(ctx: XdpContext) -> u32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    let (Some(settings), Some(round)) = (SETTINGS.get_ptr(0), ROUND.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the maps are this benchmark's own, and it runs on one CPU.
    let (settings, n) = unsafe {
        *round = (*round).wrapping_add((*settings).stride);
        (&*settings, *round & (*settings).flows.wrapping_sub(1))
    };
    // The number's low half goes to the source port, its high half to the source address's end.
    let (low, high) = (n << 16 >> 16, n >> 16 << 16);
    if settings.v6 != 0 {
        if data + V6 > end {
            return xdp_action::XDP_ABORTED;
        }
        restore::<V6>(data, settings);
        put(data + 34, word(settings, 34) ^ high);
        put(data + 54, word(settings, 54) ^ low);
    } else {
        if data + V4 > end {
            return xdp_action::XDP_ABORTED;
        }
        restore::<V4>(data, settings);
        put(data + 26, word(settings, 26) ^ high);
        put(data + 34, word(settings, 34) ^ low);
    }
    // SAFETY: the kernel's context; when it succeeds the call does not return.
    unsafe { NEXT.tail_call(&ctx, 0) };
    xdp_action::XDP_ABORTED
}

/// Writes the headers in pieces that are not smaller than those that a program reads, where the
/// processor could not hand on what is still on its way to the cache: a packet from the wire has
/// no such wait. The first two bytes are left alone: so every piece of four is a header's own word,
/// and no program reads a destination MAC address.
#[inline(always)]
fn restore<const END: usize>(data: usize, settings: &Settings) {
    let mut at = 2;
    while at < END {
        put(data + at, word(settings, at));
        at += 4;
    }
}

#[inline(always)]
fn word(settings: &Settings, at: usize) -> u32 {
    // SAFETY: `at` is a constant below `HEADERS`. Not aligned, which BPF's JITs allow.
    unsafe { *settings.original.as_ptr().add(at + 2).cast::<u32>() }
}

#[inline(always)]
fn put(address: usize, value: u32) {
    // SAFETY: the caller has checked the bounds. Volatile: in pieces of four bytes, see `restore`.
    unsafe { (address as *mut u32).write_volatile(value) };
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
