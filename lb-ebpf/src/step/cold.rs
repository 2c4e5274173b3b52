//! The steps off the fast path, as functions that the verifier looks at once, on their own, and not
//! once for each state that they can be called in ("global functions", Documentation/bpf/verifier:
//! a symbol that is exported makes one). It knows nothing of their arguments and of their result.
//! The packet is handed over in a map: kernels before 6.2 take no key of a look-up from memory that a
//! global function was given, and the stack has no room for another copy.

use core::arch::asm;

use aya_ebpf::bindings::xdp_md;
use lb_common::abi::{AddrV4, AddrV6, Verdict};

use crate::{
    family::{Family, V4, V6},
    maps::Tables as _,
    step::{check, forward, fragment, half_open, icmp, open, outbound, parse::Packet, refuse},
};

macro_rules! cold {
    ($($(#[$doc:meta])* $method:ident: $v4:ident, $v6:ident => $room:ident :: $step:ident;)*) => {
        /// The steps of one IP version. Each takes a packet and a number of its own, and gives a
        /// number of its own back.
        pub trait Cold: Family {
            $(
                $(#[$doc])*
                fn $method(ctx: *mut xdp_md, packet: &Packet<Self::A>, argument: u32) -> u64;
            )*
        }

        impl Cold for V4 {
            $(
                #[inline(always)]
                fn $method(ctx: *mut xdp_md, packet: &Packet<AddrV4>, argument: u32) -> u64 {
                    Self::hand(packet);
                    $v4(ctx, argument)
                }
            )*
        }

        impl Cold for V6 {
            $(
                #[inline(always)]
                fn $method(ctx: *mut xdp_md, packet: &Packet<AddrV6>, argument: u32) -> u64 {
                    Self::hand(packet);
                    $v6(ctx, argument)
                }
            )*
        }

        $(
            cold!(global $v4, V4, AddrV4, $room, $step);
            cold!(global $v6, V6, AddrV6, $room, $step);
        )*
    };
    (global $name:ident, $family:ty, $addr:ty, $room:ident, $step:ident) => {
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $name(ctx: *mut xdp_md, argument: u32) -> u64 {
            // SAFETY: nothing is executed. Without a use of each argument LLVM leaves the registers
            // of those that a step does not look at as they are, and the verifier refuses the call.
            unsafe {
                let ctx = ctx as usize;
                asm!("/* {0} {1} */", in(reg) ctx, in(reg) argument, options(nomem, nostack));
            }
            match <$family>::packet() {
                Some(packet) => $room::$step::<$family>(ctx, packet, argument),
                None => Verdict::Malformed as u64, // never: the map has this entry
            }
        }
    };
}

cold! {
    /// `half_open::find`.
    half_open: half_open_v4, half_open_v6 => half_open::find;
    /// `open::choose`.
    choose: choose_v4, choose_v6 => open::choose;
    /// `outbound::choose`.
    choose_outbound: outbound_v4, outbound_v6 => outbound::choose;
    /// `open::record`; the number is the chosen real server.
    record: record_v4, record_v6 => open::record;
    /// `open::record_direct`; the number is the chosen real server.
    record_direct: record_direct_v4, record_direct_v6 => open::record_direct;
    /// `forward::drafted`.
    forward_drafted: forward_v4, forward_v6 => forward::drafted;
    /// `icmp::cold`.
    icmp_error: icmp_error_v4, icmp_error_v6 => icmp::cold;
    /// `fragment::later`.
    later: later_v4, later_v6 => fragment::later;
    /// `fragment::remember`.
    remember: remember_v4, remember_v6 => fragment::remember;
    /// `check::answer`.
    check_answer: check_answer_v4, check_answer_v6 => check::answer;
    /// `refuse::reset`.
    reset_with: reset_v4, reset_v6 => refuse::reset;
    /// `refuse::explain`; the number is not 0: too big.
    explain: explain_v4, explain_v6 => refuse::icmp;
}
