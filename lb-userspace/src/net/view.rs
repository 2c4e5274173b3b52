//! What the kernel has said about links, addresses and neighbours. Pure: messages in, changes out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo as LinkKindInfo, LinkMessage,
    VlanProtocol,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The kernel's number for it.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; none where it has no address of six bytes.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Switched on by the administrator.
    pub up: bool,
    /// The cable (or what stands for it) is connected, and it is up.
    pub carrier: bool,
    /// The bridge, bond or VRF that it belongs to.
    pub master: Option<u32>,
    /// The loopback interface.
    pub loopback: bool,
    /// It is a VLAN on another interface.
    pub vlan: Option<Vlan>,
}

/// What makes an interface a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Its identifier, host order.
    pub id: u16,
    /// The tag is 802.1Q's, not 802.1ad's.
    pub customer: bool,
    /// The ifindex of the interface under it.
    pub under: u32,
}

impl LinkInfo {
    /// Up, and with a carrier.
    pub fn usable(&self) -> bool {
        self.up && self.carrier
    }

    /// Reads a link message. None: a message about something else, such as a bridge's port.
    fn parse(message: &LinkMessage) -> Option<Self> {
        let header = &message.header;
        if header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let mut link = Self {
            ifindex: header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: header.flags.contains(LinkFlags::Up),
            carrier: header.flags.contains(LinkFlags::LowerUp),
            master: None,
            loopback: header.flags.contains(LinkFlags::Loopback),
            vlan: None,
        };
        let (mut vlan, mut under) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => {
                    link.mac = bytes.as_slice().try_into().ok().filter(|mac| *mac != [0; 6]);
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(master) => link.master = Some(*master),
                LinkAttribute::LinkInfo(kind) => vlan = tag(kind),
                LinkAttribute::Link(ifindex) => under = Some(*ifindex),
                _ => {}
            }
        }
        link.vlan = vlan.zip(under).map(|((id, customer), under)| Vlan { id, customer, under });
        Some(link)
    }
}

/// The identifier of a VLAN interface, and whether its tag is 802.1Q's (the kernel's default).
fn tag(kind: &[LinkKindInfo]) -> Option<(u16, bool)> {
    let attributes = kind.iter().find_map(|info| match info {
        LinkKindInfo::Data(InfoData::Vlan(attributes)) => Some(attributes),
        _ => None,
    })?;
    let id = attributes.iter().find_map(|attribute| match attribute {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })?;
    let other = |attribute: &InfoVlan| matches!(attribute, InfoVlan::Protocol(protocol) if *protocol != VlanProtocol::Ieee8021Q);
    Some((id, !attributes.iter().any(other)))
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressInfo {
    /// The address.
    pub address: IpAddr,
    /// Length of its subnet's prefix.
    pub prefix_length: u8,
    /// The interface that has it.
    pub ifindex: u32,
}

impl AddressInfo {
    /// Whether `other` is in this address's subnet.
    pub fn subnet_contains(&self, other: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (u128::from(a.to_bits()), u128::from(b.to_bits()), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let host_bits = width - u32::from(self.prefix_length).min(width);
        (ours ^ theirs).checked_shr(host_bits).unwrap_or(0) == 0
    }

    fn parse(message: &AddressMessage) -> Option<Self> {
        let mut address = None;
        for attribute in &message.attributes {
            match attribute {
                // On a point-to-point link `Address` is the peer's.
                AddressAttribute::Local(local) => address = Some(*local),
                AddressAttribute::Address(other) => address = address.or(Some(*other)),
                _ => {}
            }
        }
        Some(Self {
            address: address?,
            prefix_length: message.header.prefix_len,
            ifindex: message.header.index,
        })
    }
}

/// An IP address on a link: what a neighbour entry is about.
pub type HopKey = (u32, IpAddr);

/// A neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// The kernel's state of it.
    pub state: NeighbourState,
}

impl Neighbour {
    /// The address, where the kernel itself would use it.
    pub fn usable_mac(&self) -> Option<[u8; 6]> {
        use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
        match self.state {
            Reachable | Stale | Delay | Probe | Permanent | Noarp => self.mac,
            _ => None,
        }
    }
}

fn parse_neighbour(message: &NeighbourMessage) -> Option<(HopKey, Neighbour)> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let key = (message.header.ifindex, address?);
    Some((key, Neighbour { mac, state: message.header.state }))
}

/// What a message changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that matters here.
    Nothing,
    /// A link appeared or changed.
    Link {
        /// Before; none if it is new.
        before: Option<LinkInfo>,
        /// Now.
        now: LinkInfo,
    },
    /// A link went away.
    LinkGone(LinkInfo),
    /// An address of this host came or went.
    Addresses,
    /// A neighbour entry changed.
    Neighbour {
        /// Which.
        key: HopKey,
        /// Before.
        before: Option<Neighbour>,
        /// Now; none if it was deleted.
        now: Option<Neighbour>,
    },
    /// A route or a routing rule changed.
    Routes,
}

/// Everything that was heard.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// By ifindex.
    pub links: BTreeMap<u32, LinkInfo>,
    /// Sorted, without duplicates.
    pub addresses: Vec<AddressInfo>,
    /// By interface and address.
    pub neighbours: HashMap<HopKey, Neighbour>,
}

impl View {
    /// The link of that name.
    pub fn link_named(&self, name: &str) -> Option<&LinkInfo> {
        self.links.values().find(|link| link.name == name)
    }

    /// The links of these names, and then the VLANs on them: the places where medlb sees packets.
    pub fn places(&self, attached: &[String]) -> Vec<&LinkInfo> {
        let named: Vec<&LinkInfo> =
            attached.iter().filter_map(|name| self.link_named(name)).collect();
        let on_them = self.links.values().filter(|link| {
            let under = link.vlan.map(|vlan| vlan.under);
            named.iter().any(|n| Some(n.ifindex) == under) && !attached.contains(&link.name)
        });
        named.iter().copied().chain(on_them).collect()
    }

    /// The name of a link, or its number in words.
    pub fn name_of(&self, ifindex: u32) -> String {
        self.links
            .get(&ifindex)
            .map_or_else(|| format!("interface {ifindex}"), |link| link.name.clone())
    }

    /// Takes in a message.
    pub fn apply(&mut self, message: &RouteNetlinkMessage) -> Change {
        match message {
            RouteNetlinkMessage::NewLink(m) => self.link(m),
            RouteNetlinkMessage::DelLink(m) => match LinkInfo::parse(m) {
                Some(link) => self.link_gone(link.ifindex),
                None => Change::Nothing,
            },
            RouteNetlinkMessage::NewAddress(m) => {
                AddressInfo::parse(m).map_or(Change::Nothing, |address| self.add_address(address))
            }
            RouteNetlinkMessage::DelAddress(m) => AddressInfo::parse(m)
                .map_or(Change::Nothing, |address| self.remove_address(address)),
            RouteNetlinkMessage::NewNeighbour(m) => parse_neighbour(m)
                .map_or(Change::Nothing, |(key, entry)| self.neighbour(key, Some(entry))),
            RouteNetlinkMessage::DelNeighbour(m) => {
                parse_neighbour(m).map_or(Change::Nothing, |(key, _)| self.neighbour(key, None))
            }
            RouteNetlinkMessage::NewRoute(_)
            | RouteNetlinkMessage::DelRoute(_)
            | RouteNetlinkMessage::NewRule(_)
            | RouteNetlinkMessage::DelRule(_) => Change::Routes,
            _ => Change::Nothing,
        }
    }

    fn link(&mut self, message: &LinkMessage) -> Change {
        let Some(now) = LinkInfo::parse(message) else { return Change::Nothing };
        let before = self.links.insert(now.ifindex, now.clone());
        if before.as_ref() == Some(&now) {
            return Change::Nothing;
        }
        Change::Link { before, now }
    }

    fn link_gone(&mut self, ifindex: u32) -> Change {
        self.addresses.retain(|address| address.ifindex != ifindex);
        self.neighbours.retain(|key, _| key.0 != ifindex);
        self.links.remove(&ifindex).map_or(Change::Nothing, Change::LinkGone)
    }

    /// Adds an address.
    pub fn add_address(&mut self, address: AddressInfo) -> Change {
        match self.addresses.binary_search(&address) {
            Ok(_) => Change::Nothing,
            Err(at) => {
                self.addresses.insert(at, address);
                Change::Addresses
            }
        }
    }

    /// Removes an address.
    pub fn remove_address(&mut self, address: AddressInfo) -> Change {
        match self.addresses.binary_search(&address) {
            Ok(at) => {
                self.addresses.remove(at);
                Change::Addresses
            }
            Err(_) => Change::Nothing,
        }
    }

    fn neighbour(&mut self, key: HopKey, now: Option<Neighbour>) -> Change {
        let before = match now {
            Some(entry) => self.neighbours.insert(key, entry),
            None => self.neighbours.remove(&key),
        };
        if before == now {
            return Change::Nothing;
        }
        Change::Neighbour { key, before, now }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::InfoKind;

    use super::*;

    fn vlan_message(protocol: VlanProtocol) -> RouteNetlinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.attributes = vec![
            LinkAttribute::IfName("eth0.85".into()),
            LinkAttribute::Link(2),
            LinkAttribute::LinkInfo(vec![
                LinkKindInfo::Kind(InfoKind::Vlan),
                LinkKindInfo::Data(InfoData::Vlan(vec![
                    InfoVlan::Protocol(protocol),
                    InfoVlan::Id(85),
                ])),
            ]),
        ];
        RouteNetlinkMessage::NewLink(message)
    }

    #[test]
    fn a_vlan_interface_names_its_tag_and_the_interface_under_it() {
        let mut view = View::default();
        view.apply(&vlan_message(VlanProtocol::Ieee8021Q));
        let vlan = Vlan { id: 85, customer: true, under: 2 };
        assert_eq!(view.links[&7].vlan, Some(vlan));
        view.apply(&vlan_message(VlanProtocol::Ieee8021Ad));
        assert_eq!(view.links[&7].vlan, Some(Vlan { customer: false, ..vlan }));
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_no_link_that_went_away() {
        let mut view = View::default();
        view.apply(&vlan_message(VlanProtocol::Ieee8021Q));
        let mut port = LinkMessage::default();
        port.header.interface_family = AddressFamily::Bridge;
        port.header.index = 7;
        assert_eq!(view.apply(&RouteNetlinkMessage::DelLink(port)), Change::Nothing);
        assert!(view.links.contains_key(&7));
    }

    #[test]
    fn subnets_contain_their_own() {
        let subnet = |text: &str, prefix_length| AddressInfo {
            address: text.parse().unwrap(),
            prefix_length,
            ifindex: 1,
        };
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert!(subnet("10.1.2.3", 23).subnet_contains(ip("10.1.3.9")));
        assert!(!subnet("10.1.2.3", 24).subnet_contains(ip("10.1.3.9")));
        assert!(subnet("10.1.2.3", 0).subnet_contains(ip("192.0.2.1")));
        assert!(subnet("2001:db8::1", 0).subnet_contains(ip("fe80::1")));
        assert!(!subnet("0.0.0.0", 0).subnet_contains(ip("::")));
    }
}
