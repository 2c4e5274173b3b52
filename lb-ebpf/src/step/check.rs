//! Health checks through the VIP. On egress, a packet of a marked socket to a real server gets the
//! VIP as its destination, so that the server answers only if it owns the VIP; on ingress the
//! answer gets the real server's address as its source again, before the host's stack, whose own
//! address the VIP is, could see it.

use aya_ebpf::{
    bindings::{BPF_F_PSEUDO_HDR, TC_ACT_UNSPEC, xdp_md},
    programs::TcContext,
};
use lb_common::{
    abi::{
        Addr, AddrV4, AddrV6, Be16, Be32, CHECK_MARK, CHECK_MARK_MASK, FlowKey, PROTO_TCP,
        PROTO_UDP, Verdict,
    },
    packet::{
        checksum::{fold, update},
        headers::{
            ETH_IPV4, ETH_IPV6, EthHdr, IcmpHdr, IpHdr, Ipv4Hdr, Ipv6Hdr, PROTO_ICMP, PROTO_ICMPV6,
            TcpHdr,
        },
    },
};

use crate::{
    at::Frame,
    family::{Family, V4, V6},
    maps,
    step::parse::{L3, Packet},
};

/// Offsets of checksum fields from the start of their header.
const TCP_CHECK: usize = 16;
const ICMP_CHECK: usize = 2;
const IPV4_CHECK: usize = 10;

/// Egress, on every interface that checks may leave by.
#[inline(always)]
pub fn egress(ctx: &TcContext) -> i32 {
    // SAFETY: the kernel hands every classifier a valid context.
    let mark = unsafe { (*ctx.skb.skb).mark };
    if mark & CHECK_MARK_MASK == CHECK_MARK {
        let _ = redirect(ctx, mark & !CHECK_MARK_MASK); // what cannot be rewritten goes as it is
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn redirect(ctx: &TcContext, service: u32) -> Option<()> {
    let vip = maps::check_vip(service)?;
    if vip[0].raw() | vip[1].raw() | vip[2].raw() | vip[3].raw() == 0 {
        return None;
    }
    let eth: EthHdr = ctx.load(0).ok()?;
    if eth.ethertype == ETH_IPV4 {
        let ip: Ipv4Hdr = ctx.load(L3).ok()?;
        let l4 = L3 + (((ip.version_ihl & 0xf) as usize) << 2);
        let new = AddrV4::from_words(vip);
        note::<V4>(ctx, ip.src, ip.dst, new, ip.protocol, l4)?;
        let (old, to) = (ip.dst.0.raw(), new.0.raw());
        if ip.protocol == PROTO_TCP {
            let flags = BPF_F_PSEUDO_HDR as u64 | 4;
            ctx.l4_csum_replace(l4 + TCP_CHECK, old as u64, to as u64, flags).ok()?;
        }
        ctx.l3_csum_replace(L3 + IPV4_CHECK, old as u64, to as u64, 4).ok()?;
        ctx.store(L3 + core::mem::offset_of!(Ipv4Hdr, dst), &new, 0).ok()
    } else if eth.ethertype == ETH_IPV6 {
        let ip: Ipv6Hdr = ctx.load(L3).ok()?;
        let l4 = L3 + size_of::<Ipv6Hdr>();
        let new = AddrV6::from_words(vip);
        note::<V6>(ctx, ip.src, ip.dst, new, ip.next_header, l4)?;
        let at = match ip.next_header {
            PROTO_TCP => l4 + TCP_CHECK,
            _ => l4 + ICMP_CHECK, // ICMPv6 covers the pseudo header too
        };
        let mut i = 0;
        while i < 4 {
            let flags = BPF_F_PSEUDO_HDR as u64 | 4;
            let (old, to) = (ip.dst.0[i].raw(), new.0[i].raw());
            ctx.l4_csum_replace(at, old as u64, to as u64, flags).ok()?;
            i += 1;
        }
        ctx.store(L3 + core::mem::offset_of!(Ipv6Hdr, dst), &new, 0).ok()
    } else {
        None
    }
}

/// Notes what the answer will look like. For an echo request the identifier stands for the ports.
#[inline(always)]
fn note<F: Family>(
    ctx: &TcContext,
    src: F::A,
    real: F::A,
    vip: F::A,
    protocol: u8,
    l4: usize,
) -> Option<()> {
    let (sport, dport) = match protocol {
        PROTO_TCP | PROTO_UDP => {
            let ports: [Be16; 2] = ctx.load(l4).ok()?;
            (ports[1], ports[0])
        }
        PROTO_ICMP | PROTO_ICMPV6 => {
            let icmp: IcmpHdr = ctx.load(l4).ok()?;
            echo_ports(icmp.rest)
        }
        _ => return None,
    };
    let answer = FlowKey { src: vip, dst: src, sport, dport };
    if F::check(&answer).is_none() {
        F::check_insert(&answer, &real);
    }
    Some(())
}

#[inline(always)]
fn echo_ports(rest: Be32) -> (Be16, Be16) {
    (Be16::new((rest.get() >> 16) as u16), Be16::new(0))
}

/// Ingress: gives the answer its own source again. Called through `cold`.
#[inline(always)]
pub fn answer<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>, _: u32) -> u64 {
    restored::<F>(ctx, packet).unwrap_or(Verdict::NotOurs) as u64
}

#[inline(always)]
fn restored<F: Family>(ctx: *mut xdp_md, packet: &Packet<F::A>) -> Option<Verdict> {
    let frame = Frame::new(ctx);
    let mut key = FlowKey { ..packet.key };
    let mut icmp_check = None;
    if packet.protocol == PROTO_UDP {
        return None; // no check waits for one
    }
    if packet.protocol == F::ICMP {
        let icmp: &mut IcmpHdr = frame.at(packet.l4())?;
        if icmp.kind != F::ECHO_REPLY {
            return None;
        }
        (key.sport, key.dport) = echo_ports(icmp.rest);
        icmp_check = Some(&mut icmp.check);
    }
    let real = F::check(&key)?;
    // SAFETY: the look-up gave the pointer; the value is copied at once.
    let real = unsafe { *real };
    let delta = fold(packet.key.src.delta(&real));
    let ip: &mut F::Ip = frame.at(L3)?;
    ip.readdress(&real, &packet.key.dst, delta);
    match icmp_check {
        Some(check) if F::V6 => *check = update(*check, delta),
        Some(_) => {} // ICMP over IPv4 has no pseudo header
        None => {
            let tcp: &mut TcpHdr = frame.at(packet.l4())?;
            tcp.check = update(tcp.check, delta);
        }
    }
    Some(Verdict::CheckAnswer)
}
