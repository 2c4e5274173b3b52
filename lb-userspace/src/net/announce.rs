//! Telling the subnet where a VIP is: gratuitous ARP (RFC 5227) and unsolicited neighbour
//! advertisements (RFC 4861, 7.2.6), several times, because nobody acknowledges them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::time::Instant;

use super::view::View;

/// Copies sent in a burst.
const BURST: usize = 3;
/// When the bursts go out, counted from the occasion.
const BURSTS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5)];
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Announcements that are still to be sent.
#[derive(Debug, Default)]
pub struct Announcer {
    due: Vec<(Instant, IpAddr, u32)>,
}

impl Announcer {
    /// Announces `vip` on an interface, now and twice more.
    pub fn announce(&mut self, vip: IpAddr, ifindex: u32, now: Instant) {
        self.forget(vip);
        self.due.extend(BURSTS.map(|after| (now + after, vip, ifindex)));
    }

    fn forget(&mut self, vip: IpAddr) {
        self.due.retain(|(_, address, _)| *address != vip);
    }

    /// Announces only VIPs for which that holds.
    pub fn retain(&mut self, wanted: impl Fn(IpAddr) -> bool) {
        self.due.retain(|(_, address, _)| wanted(*address));
    }

    /// When the next announcement is due.
    pub fn next(&self) -> Option<Instant> {
        self.due.iter().map(|(at, ..)| *at).min()
    }

    /// Sends what is due.
    pub fn send_due(&mut self, view: &View, now: Instant) {
        let (due, later): (Vec<_>, Vec<_>) = self.due.drain(..).partition(|(at, ..)| *at <= now);
        self.due = later;
        if due.is_empty() {
            return;
        }
        // One for all: closing a packet socket waits for every CPU, which takes milliseconds.
        let socket = match sender() {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, "cannot announce VIPs");
                return;
            }
        };
        for (_, vip, ifindex) in due {
            let Some(link) = view.links.get(&ifindex).filter(|link| link.usable()) else {
                continue; // The link's coming up is an occasion of its own.
            };
            let Some(mac) = link.mac else { continue };
            if let Err(error) = burst(&socket, vip, ifindex, &link.name, mac) {
                tracing::warn!(%vip, interface = %link.name, %error, "cannot announce a VIP");
            }
        }
    }
}

/// A packet socket that sends only.
pub(super) fn sender() -> io::Result<Socket> {
    // Protocol 0: it gets no copies of the traffic.
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Sends a burst of announcements of `vip` at `mac`.
pub(super) fn burst(
    socket: &Socket,
    vip: IpAddr,
    ifindex: u32,
    name: &str,
    mac: [u8; 6],
) -> io::Result<()> {
    let (ethertype, frames) = match vip {
        IpAddr::V4(v4) => (ETHERTYPE_ARP, vec![arp(1, mac, v4).to_vec(), arp(2, mac, v4).to_vec()]),
        IpAddr::V6(v6) => (ETHERTYPE_IPV6, vec![advertisement(mac, v6, is_router(name)).to_vec()]),
    };
    let to = link_address(ifindex, ethertype);
    for _ in 0..BURST {
        for frame in &frames {
            socket.send_to(frame, &to)?;
        }
    }
    Ok(())
}

/// The address of an interface for a packet socket (packet(7)).
pub(super) fn link_address(ifindex: u32, ethertype: u16) -> SockAddr {
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    };
    // SAFETY: the storage is larger than sockaddr_ll and aligned for every socket address, and the
    // length that is set is exactly that of the value written.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(to);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }
    .expect("the closure returns no error");
    address
}

/// An ARP announcement as a whole frame: operation 1 (request) or 2 (reply), network order inside.
fn arp(operation: u8, mac: [u8; 6], vip: Ipv4Addr) -> [u8; 42] {
    let mut frame = [0; 42];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&ETHERTYPE_ARP.to_be_bytes());
    // Ethernet, IPv4, six and four bytes of address.
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&vip.octets());
    // The target: no MAC address in a request, the sender's own in a reply.
    if operation == 2 {
        frame[32..38].copy_from_slice(&mac);
    }
    frame[38..42].copy_from_slice(&vip.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes, as a whole frame.
fn advertisement(mac: [u8; 6], vip: Ipv6Addr, router: bool) -> [u8; 86] {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut frame = [0; 86];
    frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
    frame[14] = 0x60;
    frame[19] = 32; // payload length
    frame[20] = 58; // ICMPv6
    frame[21] = 255; // hop limit: a receiver refuses any other (RFC 4861, 7.1.2)
    frame[22..38].copy_from_slice(&vip.octets());
    frame[38..54].copy_from_slice(&all_nodes.octets());
    frame[54] = 136; // neighbour advertisement
    // Override, and Router where it is one: an advertisement without the flag would make hosts
    // drop the VIP from their default routers (RFC 4861, 7.2.5).
    frame[58] = 0x20 | if router { 0x80 } else { 0 };
    frame[62..78].copy_from_slice(&vip.octets());
    frame[78..80].copy_from_slice(&[2, 1]); // target link-layer address, 8 bytes
    frame[80..86].copy_from_slice(&mac);
    let sum = checksum(&frame[22..54], 58, &frame[54..]);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The Internet checksum (RFC 1071) over IPv6's pseudo-header and a payload of even length.
fn checksum(addresses: &[u8], protocol: u8, payload: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
    };
    let mut sum = words(addresses) + words(payload) + u32::from(protocol) + payload.len() as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn is_router(interface: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/forwarding"))
        .is_ok_and(|text| text.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_sums_to_zero() {
        let frame = advertisement([2, 3, 4, 5, 6, 7], "2001:db8::1".parse().unwrap(), true);
        assert_eq!(checksum(&frame[22..54], 58, &frame[54..]), 0);
        assert_eq!(frame[58], 0xa0);
    }

    #[test]
    fn a_vip_that_was_announced_again_starts_over() {
        let (vip, now) = (IpAddr::from([10, 0, 0, 1]), Instant::now());
        let mut announcer = Announcer::default();
        announcer.announce(vip, 2, now);
        announcer.announce(vip, 2, now);
        assert_eq!(announcer.due.len(), BURSTS.len());
        announcer.forget(vip);
        assert_eq!(announcer.next(), None);
    }
}
