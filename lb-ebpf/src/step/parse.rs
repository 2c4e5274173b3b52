//! Where the headers are, and what they say. Anything that is not TCP or UDP in one piece is left
//! to the kernel.

use lb_common::{
    abi::{Addr, AddrV4, AddrV6, Be16, FilterBit, FlowKey, PROTO_TCP, PROTO_UDP, Verdict},
    packet::headers::{IPV4_MF, IPV4_OFFSET, Ipv4Hdr, Ipv6Hdr, TcpHdr, UdpHdr},
};

use crate::{
    at::Frame,
    family::{V4, V6},
    maps::{self, Tables},
};

/// Where the IP header begins.
pub const L3: usize = 14;

/// What the steps need to know of a packet.
pub struct Packet<A> {
    /// Addresses and ports.
    pub key: FlowKey<A>,
    /// Where the TCP or UDP header begins, from the start of the frame.
    pub l4: usize,
    /// Length of the IP packet in bytes.
    pub bytes: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// Time to live or hop limit.
    pub hops: u8,
}

#[inline(always)]
fn l4<A: Addr>(
    frame: &Frame,
    src: A,
    dst: A,
    protocol: u8,
    at: usize,
    bytes: u32,
    hops: u8,
) -> Option<Packet<A>> {
    let (sport, dport, flags, header) = if protocol == PROTO_TCP {
        let tcp: &mut TcpHdr = frame.at(at)?;
        (tcp.sport, tcp.dport, tcp.flags, size_of::<TcpHdr>())
    } else {
        let udp: &mut UdpHdr = frame.at(at)?;
        (udp.sport, udp.dport, 0, size_of::<UdpHdr>())
    };
    // The header must lie inside the packet by the packet's own account, not only inside the
    // frame, whose end may be padding.
    if at - L3 + header > bytes as usize {
        return None;
    }
    Some(Packet { key: FlowKey { src, dst, sport, dport }, l4: at, bytes, protocol, flags, hops })
}

/// The verdict on a packet whose headers contradict themselves.
#[inline(always)]
fn malformed<T: Tables>(dst: &T::A) -> Verdict {
    if maps::filter(*dst) & FilterBit::VIP != 0 && T::vip(dst).is_some() {
        Verdict::Malformed
    } else {
        Verdict::NotOurs
    }
}

/// IPv4.
#[inline(always)]
pub fn v4(frame: &Frame) -> Result<Packet<AddrV4>, Verdict> {
    let ip: &mut Ipv4Hdr = frame.at(L3).ok_or(Verdict::NotOurs)?;
    let header = ((ip.version_ihl & 0xf) as usize) << 2;
    let bytes = ip.total_length.get() as u32;
    if ip.version_ihl >> 4 != 4
        || header < size_of::<Ipv4Hdr>()
        || L3 + bytes as usize > frame.length()
    {
        return Err(malformed::<V4>(&ip.dst));
    }
    if ip.protocol != PROTO_TCP && ip.protocol != PROTO_UDP {
        return Err(Verdict::NotOurs);
    }
    if ip.fragment.raw() & Be16::new(IPV4_MF | IPV4_OFFSET).raw() != 0 {
        return Err(Verdict::NotOurs);
    }
    l4(frame, ip.src, ip.dst, ip.protocol, L3 + header, bytes, ip.ttl)
        .ok_or_else(|| malformed::<V4>(&ip.dst))
}

/// IPv6.
#[inline(always)]
pub fn v6(frame: &Frame) -> Result<Packet<AddrV6>, Verdict> {
    let ip: &mut Ipv6Hdr = frame.at(L3).ok_or(Verdict::NotOurs)?;
    let header = size_of::<Ipv6Hdr>();
    let bytes = ip.payload_length.get() as u32 + header as u32;
    if L3 + bytes as usize > frame.length() {
        return Err(malformed::<V6>(&ip.dst));
    }
    if ip.next_header != PROTO_TCP && ip.next_header != PROTO_UDP {
        return Err(Verdict::NotOurs);
    }
    l4(frame, ip.src, ip.dst, ip.next_header, L3 + header, bytes, ip.hop_limit)
        .ok_or_else(|| malformed::<V6>(&ip.dst))
}
