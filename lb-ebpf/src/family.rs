//! IPv4 and IPv6 as types: each step is written once and compiled for both.

use lb_common::{
    abi::{Addr, AddrV4, AddrV6},
    packet::headers::{IpHdr, Ipv4Hdr, Ipv6Hdr, TcpHdr},
    packet::reset,
};

use crate::maps::Tables;

/// An IP version.
pub trait Family: Tables {
    /// Its header.
    type Ip: IpHdr<Addr = Self::A>;
    /// Its header's length without options, in bytes.
    const HEADER: usize = size_of::<Self::Ip>();
    /// The packet that answers a segment with a RST.
    fn reset(ip: &Self::Ip, tcp: &TcpHdr, payload: u32) -> (Self::Ip, TcpHdr);
}

/// IPv4.
pub struct V4;
/// IPv6.
pub struct V6;

impl Family for V4 {
    type Ip = Ipv4Hdr;

    #[inline(always)]
    fn reset(ip: &Ipv4Hdr, tcp: &TcpHdr, payload: u32) -> (Ipv4Hdr, TcpHdr) {
        reset::reset_v4(ip, tcp, payload)
    }
}

impl Family for V6 {
    type Ip = Ipv6Hdr;

    #[inline(always)]
    fn reset(ip: &Ipv6Hdr, tcp: &TcpHdr, payload: u32) -> (Ipv6Hdr, TcpHdr) {
        reset::reset_v6(ip, tcp, payload)
    }
}

const _: () = {
    const fn is_addr<A: Addr>() {}
    is_addr::<AddrV4>();
    is_addr::<AddrV6>();
};
