//! Questions to the kernel and orders to it, over rtnetlink.

use std::io;
use std::net::IpAddr;

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::Handle;

use super::view::{AddressInfo, View};

/// The kernel's answer to "how would a packet go to this address?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out by an interface.
    Via {
        /// Egress interface.
        ifindex: u32,
        /// The address to resolve: the destination's own, or its router's.
        next_hop: IpAddr,
        /// The destination is on a connected subnet.
        on_link: bool,
        /// The source address that the kernel would choose.
        source: Option<IpAddr>,
    },
    /// Nowhere, with the reason in words.
    Nowhere(String),
}

/// A connection for requests. Clones share it.
#[derive(Clone, Debug)]
pub struct Kernel {
    handle: Handle,
}

impl Kernel {
    /// Connects, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn connect() -> anyhow::Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("cannot open a netlink socket")?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Asks for everything that a [`View`] holds.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn dump(&self) -> anyhow::Result<View> {
        let mut view = View::default();
        let mut links = self.handle.link().get().execute();
        while let Some(m) = links.try_next().await.map_err(plain).context("cannot list links")? {
            view.apply(&RouteNetlinkMessage::NewLink(m));
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(m) =
            addresses.try_next().await.map_err(plain).context("cannot list addresses")?
        {
            view.apply(&RouteNetlinkMessage::NewAddress(m));
        }
        let mut neighbours = self.handle.neighbours().get().execute();
        while let Some(m) =
            neighbours.try_next().await.map_err(plain).context("cannot list neighbours")?
        {
            view.apply(&RouteNetlinkMessage::NewNeighbour(m));
        }
        Ok(view)
    }

    /// Asks how a packet would go to `destination`.
    pub async fn route_to(&self, destination: IpAddr) -> Route {
        let mut query = RouteMessage::default();
        query.header.address_family = family(destination);
        query.header.destination_prefix_length = full_length(destination);
        query.attributes.push(RouteAttribute::Destination(destination.into()));
        let mut answers = self.handle.route().get(query).execute();
        match answers.try_next().await {
            Ok(Some(answer)) => read_route(destination, &answer),
            Ok(None) => Route::Nowhere(format!("no route to {destination}")),
            Err(error) => Route::Nowhere(refusal(destination, &plain(error))),
        }
    }

    /// Makes the kernel resolve a neighbour, or check that it is still there (NTF_USE).
    ///
    /// # Errors
    /// The interface is gone or down, or does not resolve addresses.
    pub async fn provoke(&self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = ifindex;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(match address {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        }));
        self.order(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE).await
    }

    /// Puts a VIP on an interface as /32 or /128: without a prefix route, an IPv6 address without
    /// duplicate address detection and deprecated, so that the host does not choose it as the
    /// source of its own connections (RFC 6724 would, for neighbours of the VIP).
    ///
    /// # Errors
    /// `AlreadyExists` if the interface has it; otherwise what the kernel says.
    pub async fn add_vip(&self, vip: AddressInfo) -> io::Result<()> {
        let mut message = address_message(vip);
        let mut flags = AddressFlags::Noprefixroute | AddressFlags::Permanent;
        if vip.address.is_ipv6() {
            flags |= AddressFlags::Nodad;
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_valid = u32::MAX;
            lifetime.ifa_preferred = 0;
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
        message.attributes.push(AddressAttribute::Flags(flags));
        self.order(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Takes an address off an interface. One that is not there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_vip(&self, vip: AddressInfo) -> io::Result<()> {
        match self.order(RouteNetlinkMessage::DelAddress(address_message(vip)), 0).await {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => {
                Ok(())
            }
            other => other,
        }
    }

    async fn order(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut replies = self.handle.clone().request(request).map_err(plain)?;
        while let Some(reply) = replies.next().await {
            if let NetlinkPayload::Error(error) = reply.payload
                && error.code.is_some()
            {
                return Err(error.to_io());
            }
        }
        Ok(())
    }
}

fn address_message(vip: AddressInfo) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(vip.address);
    message.header.prefix_len = vip.prefix_length;
    message.header.index = vip.ifindex;
    message.attributes.push(AddressAttribute::Local(vip.address));
    message.attributes.push(AddressAttribute::Address(vip.address));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The prefix length of a single address.
pub fn full_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The operating system's error inside rtnetlink's.
fn plain(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

fn refusal(destination: IpAddr, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN) => {
            format!("no route to {destination}")
        }
        Some(libc::EACCES) => format!("a route forbids {destination} (prohibit)"),
        Some(libc::EINVAL) => format!("a route discards packets to {destination} (blackhole)"),
        _ => format!("the route to {destination} cannot be asked: {error}"),
    }
}

fn read_route(destination: IpAddr, answer: &RouteMessage) -> Route {
    let nowhere = |words: &str| Route::Nowhere(format!("{destination} {words}"));
    match answer.header.kind {
        RouteType::Unicast | RouteType::Unspec => {}
        RouteType::Local => return nowhere("is an address of this host"),
        RouteType::Broadcast => return nowhere("is a broadcast address"),
        RouteType::Multicast => return nowhere("is a multicast address"),
        RouteType::Anycast => return nowhere("is an anycast address of this host"),
        _ => return Route::Nowhere(format!("no route to {destination}")),
    }
    let (mut ifindex, mut gateway, mut source) = (None, None, None);
    for attribute in &answer.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(v4)) => gateway = Some(IpAddr::V4(*v4)),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    let Some(ifindex) = ifindex else {
        return Route::Nowhere(format!("no route to {destination}"));
    };
    let next_hop = gateway.unwrap_or(destination);
    Route::Via { ifindex, next_hop, on_link: next_hop == destination, source }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
