//! medlb's data path: one XDP program. `pipeline` is the order of things, `step` one file for
//! each, `maps` and `at` the only files that touch maps and packets. Decisions and rewrites are in
//! lb-common, where they run on any host; only what needs a helper, a map or a packet pointer
//! belongs here.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)] // `atomic`

mod at;
mod atomic;
mod clock;
mod family;
mod iterate;
mod maps;
mod pipeline;
mod step;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::trace;
use lb_common::abi::{Action, Verdict};

use step::{transmit, vlan};

/// The load balancer. With `frags`: it takes jumbo frames, which do not lie in one piece.
#[xdp(frags)]
pub fn medlb(ctx: XdpContext) -> u32 {
    balance::<true>(ctx)
}

/// The same for drivers that refuse programs with `frags`; loaded only where one does.
#[xdp]
pub fn medlb_linear(ctx: XdpContext) -> u32 {
    balance::<false>(ctx)
}

#[inline(always)]
fn balance<const FRAGS: bool>(ctx: XdpContext) -> u32 {
    let ctx = ctx.ctx;
    let mut taken = vlan::Taken::NONE;
    let mut tags = 0;
    if vlan::has_tag(ctx) {
        vlan::take(ctx, &mut taken);
        tags = taken.tags().bits();
    }
    let verdict =
        match pipeline::process(ctx, tags).and_then(|way| transmit::send::<FRAGS>(ctx, way)) {
            Ok(action) => return action,
            Err(verdict) => verdict,
        };
    maps::count(verdict);
    // What stays as it was, or goes back where it came from, gets its tags back.
    if taken.any() && verdict.action() != Action::Drop && !vlan::put_back(ctx, &taken) {
        maps::count(Verdict::AdjustFailed);
        return xdp_action::XDP_DROP;
    }
    let action = match verdict.action() {
        Action::Pass => return xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
        Action::Reflect => xdp_action::XDP_TX,
    };
    log(ctx, verdict as u32);
    action
}

/// Costs nothing unless the daemon asked for it at load time (`AYA_LOG_LEVEL`): the verifier knows
/// the constant and removes all of it. The daemon has the words (dataplane/log.rs).
#[inline(always)]
fn log(ctx: *mut xdp_md, verdict: u32) {
    let ctx = XdpContext::new(ctx);
    trace!(&ctx, "{} {}", verdict, ctx.ingress_ifindex() as u32);
}

/// Sends health checks of DR services through the VIP.
#[classifier]
pub fn medlb_check(ctx: TcContext) -> i32 {
    step::check::egress(&ctx)
}

/// Returns the data path's clock: userspace runs it with PROG_TEST_RUN to know what time it is
/// here.
#[xdp]
pub fn medlb_clock(_ctx: XdpContext) -> u32 {
    clock::now()
}

/// Anything but a GPL-compatible licence loses helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the verifier refuses a program that could get here.
    loop {}
}
