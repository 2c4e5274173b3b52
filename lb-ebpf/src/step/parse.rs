//! Where the headers are, and what they say.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    abi::{Addr, AddrV4, AddrV6, Be16, FilterBit, FlowKey, PROTO_TCP, PROTO_UDP, Verdict},
    packet::headers::{
        IPV4_MF, IPV4_OFFSET, Ipv4Hdr, Ipv6Ext, Ipv6Hdr, PROTO_ICMP, PROTO_ICMPV6, TcpHdr, UdpHdr,
        ipv6_ext,
    },
};

use crate::{
    at::{self, Frame},
    family::{V4, V6},
    maps::{self, Tables},
};

/// Where the IP header begins.
pub const L3: usize = 14;
/// How many IPv6 extension headers are walked over.
const EXTENSIONS: u32 = 6;
/// The farthest from the start of the frame that a header may begin, in bytes.
const FARTHEST: usize = 1024;

/// Which piece of an IP packet a frame holds.
pub mod piece {
    /// All of it.
    pub const WHOLE: u8 = 0;
    /// The first fragment, with the ports.
    pub const FIRST: u8 = 1;
    /// A later one, without.
    pub const LATER: u8 = 2;
}

/// What the steps need to know of a packet.
///
/// No hidden bytes: it is handed over in a map (`cold`).
#[repr(C)]
#[derive(Clone)]
pub struct Packet<A> {
    /// Where the TCP, UDP or ICMP header begins, from the start of the frame.
    pub l4: usize,
    /// Addresses and ports; the ports are 0 where there are none.
    pub key: FlowKey<A>,
    /// Length of the IP packet in bytes.
    pub bytes: u32,
    /// Identification of a fragmented packet, as it lies in memory.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags; 0 for others.
    pub flags: u8,
    /// Time to live or hop limit.
    pub hops: u8,
    /// One of [`piece`].
    pub piece: u8,
    /// `lb_common::abi::Tags` of the frame that it came in.
    pub tags: u32,
    /// 0.
    pub _pad: u32,
}

impl<A> Packet<A> {
    /// Where the TCP, UDP or ICMP header begins. The mask changes nothing: a global function's
    /// verifier (`cold`) has not seen that the field is small.
    #[inline(always)]
    pub fn l4(&self) -> usize {
        self.l4 & (2 * FARTHEST - 1)
    }
}

/// Reads ports and flags. `None`: the header does not lie inside the packet by the packet's own
/// account; the frame's end may be padding.
#[inline(always)]
fn l4<A: Addr>(frame: &Frame, mut packet: Packet<A>) -> Option<Packet<A>> {
    let header = if packet.piece == piece::LATER {
        0
    } else if packet.protocol == PROTO_TCP {
        let tcp: &mut TcpHdr = frame.at(packet.l4)?;
        packet.key.sport = tcp.sport;
        packet.key.dport = tcp.dport;
        packet.flags = tcp.flags;
        size_of::<TcpHdr>()
    } else if packet.protocol == PROTO_UDP {
        let udp: &mut UdpHdr = frame.at(packet.l4)?;
        packet.key.sport = udp.sport;
        packet.key.dport = udp.dport;
        size_of::<UdpHdr>()
    } else {
        0
    };
    if packet.l4 - L3 + header > packet.bytes as usize { None } else { Some(packet) }
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

/// Whether an IP packet of this length ends inside its frame. Only a jumbo frame ends behind its
/// linear part.
#[inline(always)]
fn ends_inside(ctx: *mut xdp_md, frame: &Frame, bytes: u32) -> bool {
    let end = L3 + bytes as usize;
    end <= frame.length() || end as u64 <= at::whole_length(ctx)
}

/// IPv4.
#[inline(always)]
pub fn v4(ctx: *mut xdp_md, frame: &Frame, tags: u32) -> Result<Packet<AddrV4>, Verdict> {
    let ip: &mut Ipv4Hdr = frame.at(L3).ok_or(Verdict::NotOurs)?;
    let header = ((ip.version_ihl & 0xf) as usize) << 2;
    let bytes = ip.total_length.get() as u32;
    if ip.version_ihl >> 4 != 4 || header < size_of::<Ipv4Hdr>() || !ends_inside(ctx, frame, bytes)
    {
        return Err(malformed::<V4>(&ip.dst));
    }
    if ip.protocol != PROTO_TCP && ip.protocol != PROTO_UDP && ip.protocol != PROTO_ICMP {
        return Err(Verdict::NotOurs);
    }
    let mut piece = piece::WHOLE;
    if ip.fragment.raw() & Be16::new(IPV4_MF | IPV4_OFFSET).raw() != 0 {
        let later = ip.fragment.raw() & Be16::new(IPV4_OFFSET).raw() != 0;
        piece = if later { piece::LATER } else { piece::FIRST };
    }
    let packet = Packet {
        key: FlowKey { src: ip.src, dst: ip.dst, ..FlowKey::default() },
        l4: L3 + header,
        bytes,
        id: ip.id.raw() as u32,
        protocol: ip.protocol,
        flags: 0,
        hops: ip.ttl,
        piece,
        tags,
        _pad: 0,
    };
    l4(frame, packet).ok_or_else(|| malformed::<V4>(&ip.dst))
}

/// IPv6.
#[inline(always)]
pub fn v6(ctx: *mut xdp_md, frame: &Frame, tags: u32) -> Result<Packet<AddrV6>, Verdict> {
    let ip: &mut Ipv6Hdr = frame.at(L3).ok_or(Verdict::NotOurs)?;
    let bytes = ip.payload_length.get() as u32 + size_of::<Ipv6Hdr>() as u32;
    if !ends_inside(ctx, frame, bytes) {
        return Err(malformed::<V6>(&ip.dst));
    }
    let mut packet = Packet {
        key: FlowKey { src: ip.src, dst: ip.dst, ..FlowKey::default() },
        l4: L3 + size_of::<Ipv6Hdr>(),
        bytes,
        id: 0,
        protocol: ip.next_header,
        flags: 0,
        hops: ip.hop_limit,
        piece: piece::WHOLE,
        tags,
        _pad: 0,
    };
    if packet.protocol != PROTO_TCP && packet.protocol != PROTO_UDP {
        let mut found =
            Found { l4: packet.l4 as u16, protocol: packet.protocol, piece: piece::WHOLE, id: 0 };
        if !walk(ctx, &mut found) {
            return Err(malformed::<V6>(&ip.dst));
        }
        // Volatile: numbers read back from memory have no history, so that the verifier looks at
        // what follows once and not once for each way through the headers.
        let found = &raw const found;
        // SAFETY: a local variable.
        unsafe {
            packet.l4 = (&raw const (*found).l4).read_volatile() as usize;
            packet.protocol = (&raw const (*found).protocol).read_volatile();
            packet.piece = (&raw const (*found).piece).read_volatile();
            packet.id = (&raw const (*found).id).read_volatile();
        }
        if packet.l4 > FARTHEST {
            return Err(malformed::<V6>(&ip.dst));
        }
        if packet.protocol != PROTO_TCP
            && packet.protocol != PROTO_UDP
            && packet.protocol != PROTO_ICMPV6
        {
            return Err(Verdict::NotOurs);
        }
    }
    l4(frame, packet).ok_or_else(|| malformed::<V6>(&ip.dst))
}

/// What is behind the extension headers.
struct Found {
    l4: u16,
    protocol: u8,
    piece: u8,
    id: u32,
}

/// Over the extension headers to the one behind them, or to where a later fragment's data begin.
/// Not inlined: packets with extension headers only.
#[inline(never)]
fn walk(ctx: *mut xdp_md, found: &mut Found) -> bool {
    let frame = Frame::new(ctx);
    let mut turn = 0;
    while turn < EXTENSIONS && found.piece != piece::LATER {
        let at = found.l4 as usize;
        if at > FARTHEST {
            return false;
        }
        let length = match found.protocol {
            ipv6_ext::HOP_BY_HOP | ipv6_ext::ROUTING | ipv6_ext::DESTINATION => {
                let Some(ext) = frame.at::<Ipv6Ext>(at) else { return false };
                found.protocol = ext.next_header;
                (ext.length as u16 + 1) * 8
            }
            ipv6_ext::FRAGMENT => {
                let Some(ext) = frame.at::<Ipv6Ext>(at) else { return false };
                found.protocol = ext.next_header;
                found.id = ext.id.raw();
                if ext.fragment.raw() & Be16::new(0xfff8).raw() != 0 {
                    found.piece = piece::LATER;
                } else if ext.fragment.raw() & Be16::new(1).raw() != 0 {
                    found.piece = piece::FIRST;
                }
                8
            }
            _ => return true,
        };
        found.l4 += length;
        turn += 1;
    }
    true
}
