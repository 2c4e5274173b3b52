//! Answers to packets that cannot be forwarded: made in place, sent back where they came from.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_tail};
use lb_common::{
    abi::Verdict,
    packet::headers::{EthHdr, TcpHdr, tcp_flags::RST},
};

use crate::{
    at::Frame,
    family::Family,
    step::parse::{L3, Packet},
};

/// Shortest Ethernet frame without its checksum (IEEE 802.3 §3.2.8): not every driver pads.
const SHORTEST: usize = 60;

/// Turns the TCP segment in hand into the RST that answers it, and gives the verdict back. A RST
/// is never answered. Packet pointers of the caller are void afterwards.
#[inline(always)]
pub fn with_reset<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>, verdict: Verdict) -> Verdict {
    if packet.flags & RST != 0 {
        return Verdict::NoFlow;
    }
    if reset::<F>(ctx, packet) { verdict } else { Verdict::AdjustFailed }
}

/// Not inlined: off the fast path.
#[inline(never)]
fn reset<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> bool {
    answer::<F>(ctx, packet).is_some()
}

#[inline(always)]
fn answer<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> Option<()> {
    let frame = Frame::new(ctx);
    let ip: &mut F::Ip = frame.at(L3)?;
    let tcp: &mut TcpHdr = frame.at(packet.l4)?;
    let headers = (packet.l4 - L3) as u32 + ((tcp.offset >> 4) as u32) * 4;
    let payload = packet.bytes.saturating_sub(headers);
    let (new_ip, new_tcp) = F::reset(ip, tcp, payload);

    let wanted = L3 + F::HEADER + size_of::<TcpHdr>();
    let length = frame.length();
    let wanted = if wanted < SHORTEST && length >= SHORTEST { SHORTEST } else { wanted };
    // SAFETY: the helper checks the new length; all pointers are derived again below.
    if unsafe { bpf_xdp_adjust_tail(ctx, wanted as i32 - length as i32) } != 0 {
        return None;
    }
    let frame = Frame::new(ctx);
    let eth: &mut EthHdr = frame.at(0)?;
    core::mem::swap(&mut eth.dst, &mut eth.src);
    let ip: &mut F::Ip = frame.at(L3)?;
    *ip = new_ip;
    let tcp: &mut TcpHdr = frame.at(L3 + F::HEADER)?;
    *tcp = new_tcp;
    if let Some(padding) = frame.at::<[u8; SHORTEST - 54]>(54)
        && wanted == SHORTEST
    {
        *padding = [0; SHORTEST - 54];
    }
    Some(())
}
