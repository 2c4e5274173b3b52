//! What the kernel says of an interface: index, MAC address, MTU, the XDP program on it. By
//! netlink, because /sys shows the interfaces of the namespace that it was mounted in.

use std::io;

use anyhow::{Context as _, bail};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// An interface, as far as forwarding is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index.
    pub ifindex: u32,
    /// MAC address; zeros where there is none (loopback).
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// The XDP program on it.
    pub xdp: Option<Attached>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The kernel's program id.
    pub program: u32,
    /// It runs in the driver, not in the stack.
    pub native: bool,
}

/// Which interface.
#[derive(Clone, Copy, Debug)]
pub enum By<'a> {
    /// By name.
    Name(&'a str),
    /// By the kernel's index.
    Index(u32),
}

/// Asks the kernel. `None`: there is no such interface in this network namespace.
pub fn query(by: By<'_>) -> anyhow::Result<Option<Link>> {
    let mut message = LinkMessage::default();
    match by {
        By::Name(name) => message.attributes.push(LinkAttribute::IfName(name.to_owned())),
        By::Index(index) => message.header.index = index,
    }
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = 1;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(message));
    let mut request = NetlinkMessage::new(header, payload);
    request.finalize();
    let mut buffer = vec![0; request.buffer_len()];
    request.serialize(&mut buffer);

    let socket = Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
    socket.connect(&SocketAddr::new(0, 0)).context("cannot connect to netlink")?;
    socket.send(&buffer, 0).context("cannot ask netlink for an interface")?;
    let (answer, _) = socket.recv_from_full().context("no answer from netlink")?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .context("an answer from netlink cannot be read")?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(read(&link))),
        NetlinkPayload::Error(error) => {
            let error = io::Error::from_raw_os_error(-error.raw_code());
            match error.raw_os_error() {
                Some(libc::ENODEV) => Ok(None),
                _ => Err(error).context("netlink refuses to describe an interface"),
            }
        }
        other => bail!("netlink answers with something else than an interface: {other:?}"),
    }
}

fn read(message: &LinkMessage) -> Link {
    let mut link = Link { ifindex: message.header.index, ..Link::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(mac) => link.mac = mac[..].try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Xdp(xdp) => link.xdp = attached(xdp),
            _ => {}
        }
    }
    link
}

fn attached(attributes: &[LinkXdp]) -> Option<Attached> {
    let mut program = None;
    let mut native = false;
    for attribute in attributes {
        match attribute {
            LinkXdp::ProgId(id) => program = Some(*id),
            LinkXdp::Attached(mode) => native = matches!(mode, XdpAttached::Driver),
            _ => {}
        }
    }
    program.map(|program| Attached { program, native })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_described_and_an_unknown_name_is_none() {
        let lo = query(By::Name("lo")).unwrap().expect("every namespace has a loopback");
        assert_eq!(query(By::Index(lo.ifindex)).unwrap(), Some(lo));
        assert!(lo.mtu >= 1280);
        assert_eq!(query(By::Name("medlb-no-such0")).unwrap(), None);
    }
}
