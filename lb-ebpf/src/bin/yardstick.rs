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

/// Bytes that the shim restores: Ethernet, IPv6, TCP.
pub const HEADERS: usize = 74;

#[btf_map]
static ORIGINAL: Array<[u16; HEADERS / 2], 1> = Array::new();

/// How many flows the shim goes round (a power of two), and where it is.
#[btf_map]
static ROUND: Array<[u32; 2], 1> = Array::new();

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

/// Restores the headers, puts the next flow's number into the source address (IPv4) and port, and
/// goes on to `NEXT`. Checksums are not mended: medlb only updates them.
#[xdp(frags)]
pub fn shim(ctx: XdpContext) -> u32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    let (Some(original), Some(round)) = (ORIGINAL.get(0), ROUND.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    if data + HEADERS > end {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the bytes were checked; the map value is this benchmark's own.
    unsafe {
        let packet = data as *mut u16;
        let mut i = 0;
        while i < HEADERS / 2 {
            *packet.add(i) = original[i];
            i += 1;
        }
        let n = ((*round)[1] + 1) & ((*round)[0].wrapping_sub(1));
        (*round)[1] = n;
        if (*round)[0] > 1 {
            *packet.add(14) = (n >> 16) as u16 ^ original[14];
            *packet.add(17) = n as u16;
        }
        let _ = NEXT.tail_call(&ctx, 0);
    }
    xdp_action::XDP_ABORTED
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
