//! What the control path knows of the network: next hops, links, VIP addresses. Netlink and raw
//! sockets live here and nowhere else.

use std::net::IpAddr;

/// The next hop towards a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Egress interface.
    pub ifindex: u32,
    /// Its MAC address.
    pub src_mac: [u8; 6],
    /// The next hop's MAC address: the server's own, or its router's. None while unresolved.
    pub dst_mac: Option<[u8; 6]>,
    /// The server is on a connected subnet (what DR needs).
    pub on_link: bool,
    /// The address that the kernel would use as source (SNAT's default).
    pub source: Option<IpAddr>,
}
