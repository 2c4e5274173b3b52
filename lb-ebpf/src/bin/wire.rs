//! What `cargo xtask bench --wire` sends and counts with; never installed.
//!
//! `generate` runs on live frames: it writes a frame whole (the kernel recycles its pages, so that a
//! frame still bears what the last one that had its page came to), puts in the next flow's address
//! and port with the checksums that belong to them, and redirects it. `count` counts and drops.
//! `bare` is the least that a load balancer in DR mode with two arms must do.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, PerCpuArray},
    helpers::bpf_redirect,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// Words of a frame: Ethernet, IPv4 and TCP headers and six bytes, the smallest that Ethernet has.
const WORDS: usize = 15;
const FRAME: usize = WORDS * 4;
/// Flows of one client address; the next come from the next address.
const PORTS: u32 = 1 << 14;
/// Low source ports are left alone.
const FIRST_PORT: u32 = 1024;

/// What `generate` and `bare` do; `tests::bench::wire` fills it.
#[repr(C)]
struct Settings {
    /// The first flow's number.
    first: u32,
    /// How many flows to go round.
    flows: u32,
    /// From one flow to the next, less than `flows`.
    stride: u32,
    /// Where frames go: an interface's index in this network namespace.
    interface: u32,
    /// The sum of the IPv4 header's 16-bit words without the source address's low half and the checksum.
    ip_sum: u32,
    /// The same of the TCP segment, with its pseudo header, and without the source port.
    tcp_sum: u32,
    /// `generate`: the frame; source port, the source address's low half and both checksums are left
    /// out. `bare`: the first twelve bytes are the addresses that it writes.
    frame: [u32; WORDS],
}

#[btf_map]
static SETTINGS: Array<Settings, 1> = Array::new();

/// Where the round is.
#[btf_map]
static ROUND: Array<u32, 1> = Array::new();

/// What `count` has seen.
#[btf_map]
static SEEN: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Writes a frame and sends it.
#[xdp(frags)]
pub fn generate(ctx: XdpContext) -> u32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    let (Some(settings), Some(round)) = (SETTINGS.get_ptr(0), ROUND.get_ptr_mut(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    if data + FRAME > end {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the maps are this benchmark's own, and it runs on one CPU.
    let settings = unsafe { &*settings };
    // SAFETY: as above.
    let n = unsafe {
        let mut next = *round + settings.stride;
        if next >= settings.flows {
            next -= settings.flows;
        }
        *round = next;
        settings.first + next
    };
    let (port, host) = (FIRST_PORT + (n & (PORTS - 1)), 1 + (n / PORTS));
    let mut at = 0;
    while at < WORDS {
        put(data + at * 4, settings.frame[at]);
        at += 1;
    }
    half(data + 24, !fold(settings.ip_sum + host));
    half(data + 28, host);
    half(data + 34, port);
    half(data + 50, !fold(settings.tcp_sum + host + port));
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(settings.interface, 0) as u32 }
}

/// Counts and drops.
#[xdp(frags)]
pub fn count(_ctx: XdpContext) -> u32 {
    if let Some(seen) = SEEN.get_ptr_mut(0) {
        // SAFETY: an entry of this CPU's own, and XDP is not interrupted by itself.
        unsafe { *seen += 1 };
    }
    xdp_action::XDP_DROP
}

/// Writes both MAC addresses and sends the frame on.
#[xdp(frags)]
pub fn bare(ctx: XdpContext) -> u32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    let Some(settings) = SETTINGS.get_ptr(0) else { return xdp_action::XDP_ABORTED };
    if data + 14 > end {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: nobody writes the map while the program runs.
    let settings = unsafe { &*settings };
    put(data, settings.frame[0]);
    put(data + 4, settings.frame[1]);
    put(data + 8, settings.frame[2]);
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(settings.interface, 0) as u32 }
}

/// Ones' complement: carries are added back.
#[inline(always)]
fn fold(sum: u32) -> u32 {
    let sum = (sum >> 16) + (sum & 0xffff);
    (sum >> 16) + (sum & 0xffff)
}

#[inline(always)]
fn put(address: usize, value: u32) {
    // SAFETY: the caller has checked the bounds. Not aligned, which BPF's JITs allow.
    unsafe { (address as *mut u32).write_volatile(value) };
}

/// In network order.
#[inline(always)]
fn half(address: usize, value: u32) {
    // SAFETY: as in `put`.
    unsafe { (address as *mut u16).write_volatile((value as u16).to_be()) };
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
