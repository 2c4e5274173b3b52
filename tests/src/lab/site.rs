//! Hospitals in small: a client, medlb's machine, real servers, and the cables between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{Lab, Netns, Pass};

/// How medlb forwards, as the configuration file spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Direct routing.
    Dr,
    /// Destination translation.
    Nat,
    /// Destination and source translation.
    Snat,
}

impl Method {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Dr, Self::Nat, Self::Snat];

    /// As in `forwarding_method`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dr => "dr",
            Self::Nat => "nat",
            Self::Snat => "snat",
        }
    }
}

/// How medlb's machine is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arms {
    /// Clients, medlb and servers on one LAN: packets leave by the interface they came in by.
    One,
    /// Clients on one LAN, servers on another, medlb on both.
    Two,
}

/// The clients' LAN.
pub(super) const CLIENTS: [u8; 3] = [10, 77, 1];
/// The servers' LAN.
pub(super) const SERVERS: [u8; 3] = [10, 77, 2];
const ROUTER: u8 = 1;
pub(super) const LB: u8 = 2;
pub(super) const CLIENT: u8 = 10;
pub(super) const FIRST_SERVER: u8 = 21;
const VIP: u8 = 100;

pub(super) fn at(network: [u8; 3], host: u8) -> Ipv4Addr {
    Ipv4Addr::new(network[0], network[1], network[2], host)
}

/// The IPv6 address beside an IPv4 one: 10.77.1.21 goes with fd77:0:0:1::15.
pub(super) fn beside(address: Ipv4Addr) -> Ipv6Addr {
    let [_, _, network, host] = address.octets().map(u16::from);
    Ipv6Addr::new(0xfd77, 0, 0, network, 0, 0, 0, host)
}

/// A built network. Addresses are /24s: the client 10.77.1.10, medlb 10.77.1.2, the VIP
/// 10.77.1.100; servers from .21 on, in 10.77.1.0 (one arm, DR and SNAT) or 10.77.2.0. Each has
/// an IPv6 address beside it, in fd77:0:0:1::/64 or fd77:0:0:2::/64.
#[derive(Debug)]
pub struct Site {
    /// The client's namespace; its link is `eth0`.
    pub client: Netns,
    /// medlb's; its links are `eth0` and, with two arms, `eth1` towards the servers.
    pub lb: Netns,
    /// The real servers'; their link is `eth0`.
    pub servers: Vec<Netns>,
    /// The real servers' addresses, in the same order.
    pub addresses: Vec<Ipv4Addr>,
    /// The virtual service's address; nobody has it yet but DR servers on their loopback.
    pub vip: Ipv4Addr,
    /// The same for IPv6.
    pub vip6: Ipv6Addr,
    /// How medlb forwards.
    pub method: Method,
    /// medlb's links.
    pub links: Vec<&'static str>,
    /// The network in front of the real servers.
    pub(super) network: [u8; 3],
    pub(super) switch: Netns,
    _passes: Vec<Pass>,
    /// Last, so that it goes last.
    pub lab: Lab,
}

impl Site {
    /// Builds it with this many real servers.
    ///
    /// # Errors
    /// Not root, or a tool fails.
    pub fn build(method: Method, arms: Arms, servers: usize) -> Result<Self> {
        let lab = Lab::new()?;
        let switch = lab.namespace("sw")?;
        let bridges: &[&str] = if arms == Arms::One { &["br0"] } else { &["br0", "br1"] };
        for bridge in bridges {
            switch.ip(&format!("link add {bridge} type bridge forward_delay 0"))?;
            switch.ip(&format!("link set {bridge} up"))?;
        }
        // Only there when br_netfilter is loaded.
        let _ = switch.sysctl("bridge/bridge-nf-call-iptables", 0);
        let links = if arms == Arms::One { vec!["eth0"] } else { vec!["eth0", "eth1"] };
        let network = if arms == Arms::One && method != Method::Nat { CLIENTS } else { SERVERS };
        let mut site = Self {
            client: lab.namespace("client")?,
            lb: lab.namespace("lb")?,
            servers: Vec::new(),
            addresses: Vec::new(),
            vip: at(CLIENTS, VIP),
            vip6: beside(at(CLIENTS, VIP)),
            method,
            links,
            network,
            switch,
            _passes: Vec::new(),
            lab,
        };
        site.plug(&site.client, "eth0", "p-client", "br0", at(CLIENTS, CLIENT))?;
        site.build_lb(arms)?;
        for number in 0..servers {
            site.build_server(number, network, bridges[bridges.len() - 1])?;
        }
        if arms == Arms::Two && method == Method::Dr {
            site.build_router()?;
        }
        if network != CLIENTS && method != Method::Nat {
            // A client that pings a server, and servers' own checks of clients.
            let gateway = if arms == Arms::Two { ROUTER } else { LB };
            default_route(&site.client, at(CLIENTS, gateway))?;
        }
        Ok(site)
    }

    /// An address that a SNAT service may use as its source, towards the servers.
    pub fn source_address(&self) -> Ipv4Addr {
        at(self.network, LB)
    }

    /// The same for IPv6.
    pub fn source_address6(&self) -> Ipv6Addr {
        beside(self.source_address())
    }

    /// The IPv6 addresses of the real servers.
    pub fn addresses6(&self) -> Vec<Ipv6Addr> {
        self.addresses.iter().copied().map(beside).collect()
    }

    /// The VIP of a family.
    pub fn vip_of(&self, v6: bool) -> IpAddr {
        if v6 { self.vip6.into() } else { self.vip.into() }
    }

    /// Fails if a packet arrived with a wrong checksum anywhere, or XDP could not send one.
    ///
    /// # Errors
    /// One did, or it could not.
    pub fn check_counters(&self) -> Result<()> {
        for netns in self.servers.iter().chain([&self.client, &self.lb]) {
            netns.check_checksums()?;
        }
        for link in &self.links {
            self.lb.check_xdp_errors(link)?;
        }
        Ok(())
    }

    /// The switch that all cables end in.
    pub fn switch(&self) -> &Netns {
        &self.switch
    }

    /// The switch's ends of medlb's cables.
    pub fn ports(&self) -> &'static [&'static str] {
        if self.links.len() == 1 { &["p-lb0"] } else { &["p-lb0", "p-lb1"] }
    }

    /// Every machine, by what it is.
    pub fn all(&self) -> impl Iterator<Item = (String, &Netns)> {
        let servers = self.servers.iter().enumerate();
        [("client".into(), &self.client), ("lb".into(), &self.lb), ("switch".into(), &self.switch)]
            .into_iter()
            .chain(servers.map(|(number, netns)| (format!("server{}", number + 1), netns)))
    }

    /// Gives every cable and bridge of a site without a router this MTU. To be called before medlb
    /// attaches.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        let bridges = if self.links.len() == 1 { vec!["br0"] } else { vec!["br0", "br1"] };
        let servers = (1..=self.servers.len()).map(|number| format!("p-s{number}"));
        let ports = ["p-client", "p-lb0", "p-lb1"].map(String::from);
        for port in ports.into_iter().filter(|p| p != "p-lb1" || bridges.len() > 1).chain(servers) {
            self.switch.ip(&format!("link set {port} mtu {mtu}"))?;
        }
        for bridge in bridges {
            self.switch.ip(&format!("link set {bridge} mtu {mtu}"))?;
        }
        for link in &self.links {
            self.lb.ip(&format!("link set {link} mtu {mtu}"))?;
        }
        for netns in self.servers.iter().chain([&self.client]) {
            netns.ip(&format!("link set eth0 mtu {mtu}"))?;
        }
        Ok(())
    }

    fn build_lb(&mut self, arms: Arms) -> Result<()> {
        self.plug(&self.lb, "eth0", "p-lb0", "br0", at(CLIENTS, LB))?;
        let mut ports = vec!["p-lb0"];
        if arms == Arms::Two {
            self.plug(&self.lb, "eth1", "p-lb1", "br1", at(SERVERS, LB))?;
            ports.push("p-lb1");
        } else if self.method == Method::Nat {
            own(&self.lb, "eth0", at(SERVERS, LB))?;
        }
        for port in ports {
            // Packets with a checksum still to be filled in cannot be updated incrementally, and
            // XDP_TX and redirection need NAPI and a program at the other end.
            self.switch.run("ethtool", &["-K", port, "tx", "off", "gro", "on"])?;
            self._passes.push(Pass::attach(&self.switch, port)?);
        }
        if self.method == Method::Nat {
            forward(&self.lb)?; // it is the servers' gateway
        }
        Ok(())
    }

    fn build_server(&mut self, number: usize, network: [u8; 3], bridge: &str) -> Result<()> {
        let server = self.lab.namespace(&format!("s{}", number + 1))?;
        let address = at(network, FIRST_SERVER + u8::try_from(number)?);
        self.plug(&server, "eth0", &format!("p-s{}", number + 1), bridge, address)?;
        match self.method {
            Method::Dr => {
                server.sysctl("ipv4/conf/all/arp_ignore", 1)?;
                server.sysctl("ipv4/conf/all/arp_announce", 2)?;
                server.ip(&format!("addr add {}/32 dev lo", self.vip))?;
                server.ip(&format!("addr add {}/128 dev lo", self.vip6))?;
                if network != CLIENTS {
                    default_route(&server, at(network, ROUTER))?;
                }
            }
            Method::Nat => {
                default_route(&server, at(network, LB))?;
            }
            Method::Snat => {}
        }
        self.servers.push(server);
        self.addresses.push(address);
        Ok(())
    }

    /// The router by which DR servers on another LAN answer clients.
    fn build_router(&mut self) -> Result<()> {
        let router = self.lab.namespace("router")?;
        self.plug(&router, "eth0", "p-r0", "br0", at(CLIENTS, ROUTER))?;
        self.plug(&router, "eth1", "p-r1", "br1", at(SERVERS, ROUTER))?;
        forward(&router)
    }

    /// A cable from `netns`'s `link` to a bridge.
    pub(super) fn plug(
        &self,
        netns: &Netns,
        link: &str,
        port: &str,
        bridge: &str,
        address: Ipv4Addr,
    ) -> Result<()> {
        netns.join(link, &self.switch, port)?;
        self.switch.ip(&format!("link set {port} master {bridge}"))?;
        own(netns, link, address)
    }
}

/// Gives a link an address, and the IPv6 one beside it.
pub(super) fn own(netns: &Netns, link: &str, address: Ipv4Addr) -> Result<()> {
    netns.ip(&format!("addr add {address}/24 dev {link}"))?;
    netns.ip(&format!("addr add {}/64 dev {link} nodad", beside(address)))?;
    Ok(())
}

pub(super) fn default_route(netns: &Netns, gateway: Ipv4Addr) -> Result<()> {
    netns.ip(&format!("route add default via {gateway}"))?;
    netns.ip(&format!("-6 route add default via {}", beside(gateway)))?;
    Ok(())
}

pub(super) fn forward(netns: &Netns) -> Result<()> {
    netns.sysctl("ipv4/ip_forward", 1)?;
    netns.sysctl("ipv6/conf/all/forwarding", 1)
}
