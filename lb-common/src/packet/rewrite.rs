//! The rewrites of DR, NAT and SNAT: values in, headers out.

use super::checksum::{delta16, fold, update, update_udp};
use super::headers::{EthHdr, IpHdr, TcpHdr, UdpHdr};
use crate::abi::{Addr, Be16, Flow, FlowKey, Hop, Mac, Real};

/// What a translation adds to the checksums. Computed once for a flow, applied to each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deltas {
    /// IPv4 header checksum: both addresses and one hop less.
    pub ip: u16,
    /// TCP or UDP checksum: both addresses, through the pseudo header, and both ports.
    pub l4: u16,
}

impl Deltas {
    /// The difference between a packet with the addresses and ports of `from` and one with those
    /// of `to`.
    #[inline(always)]
    pub fn between<A: Addr>(from: &FlowKey<A>, to: &FlowKey<A>) -> Self {
        let addresses = from.src.delta(&to.src) + from.dst.delta(&to.dst);
        let ports =
            delta16(from.sport.raw(), to.sport.raw()) + delta16(from.dport.raw(), to.dport.raw());
        // The time to live is the high byte of its word: one less is ~0x0100.
        let hop = !Be16::new(0x0100).raw() as u64;
        Self { ip: fold(addresses + hop), l4: fold(addresses + ports) }
    }
}

/// DR and the way to the real server in every mode: the Ethernet addresses.
#[inline(always)]
pub fn to_real(eth: &mut EthHdr, real: &Real) {
    eth.dst.put(&real.dst_mac);
    eth.src.put(&real.src_mac);
}

/// The way back to the client: to the hop that its packets came from.
#[inline(always)]
pub fn to_hop(eth: &mut EthHdr, hop: &Hop, src_mac: &Mac) {
    eth.dst.put(&hop.mac);
    eth.src.put(src_mac);
}

/// NAT and SNAT, either direction, for TCP.
#[inline(always)]
pub fn translate_tcp<I: IpHdr>(ip: &mut I, tcp: &mut TcpHdr, flow: &Flow<I::Addr>) {
    ip.translate(&flow.to.src, &flow.to.dst, flow.ip_delta);
    tcp.sport = flow.to.sport;
    tcp.dport = flow.to.dport;
    tcp.check = update(tcp.check, flow.l4_delta);
}

/// NAT and SNAT, either direction, for UDP.
#[inline(always)]
pub fn translate_udp<I: IpHdr>(ip: &mut I, udp: &mut UdpHdr, flow: &Flow<I::Addr>) {
    ip.translate(&flow.to.src, &flow.to.dst, flow.ip_delta);
    udp.sport = flow.to.sport;
    udp.dport = flow.to.dport;
    udp.check = update_udp(udp.check, flow.l4_delta);
}
