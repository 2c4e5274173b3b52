//! Routers in front of medlb and behind it, with a link that takes smaller packets than the rest.

use anyhow::Result;

use super::site::{CLIENT, CLIENTS, FIRST_SERVER, LB, at, beside, default_route, forward, own};
use super::{Method, Netns, Site};

/// The network of a client behind a router.
const FAR_CLIENTS: [u8; 3] = [10, 77, 3];
/// The network of a real server behind a router.
const FAR_SERVERS: [u8; 3] = [10, 77, 4];
/// The router's host number in the networks that it joins.
const ROUTER: u8 = 4;

impl Site {
    /// Moves the client behind a router whose link to it takes `mtu` bytes; returns the router. The
    /// client itself does not know.
    ///
    /// # Errors
    /// A tool fails.
    pub fn move_client(&mut self, mtu: u32) -> Result<Netns> {
        let router = self.lab.namespace("front")?;
        self.plug(&router, "eth0", "p-front", "br0", at(CLIENTS, ROUTER))?;
        let client = self.lab.namespace("far")?;
        client.join("eth0", &router, "eth1")?;
        own(&client, "eth0", at(FAR_CLIENTS, CLIENT))?;
        own(&router, "eth1", at(FAR_CLIENTS, ROUTER))?;
        default_route(&client, at(FAR_CLIENTS, ROUTER))?;
        forward(&router)?;
        narrow(&router, FAR_CLIENTS, mtu)?;
        let mut there = vec![&self.lb];
        if self.method == Method::Dr {
            there.extend(&self.servers);
        }
        for netns in there {
            route(netns, FAR_CLIENTS, CLIENTS)?;
        }
        self.client = client;
        Ok(router)
    }

    /// Moves the only real server behind a router whose link to it takes `mtu` bytes; returns the
    /// router. The server itself does not know. For NAT and SNAT.
    ///
    /// # Errors
    /// A tool fails.
    pub fn move_server(&mut self, bridge: &str, mtu: u32) -> Result<Netns> {
        let router = self.lab.namespace("behind")?;
        self.plug(&router, "eth0", "p-behind", bridge, at(self.network, ROUTER))?;
        let server = self.lab.namespace("far-server")?;
        server.join("eth0", &router, "eth1")?;
        own(&server, "eth0", at(FAR_SERVERS, FIRST_SERVER))?;
        own(&router, "eth1", at(FAR_SERVERS, ROUTER))?;
        default_route(&server, at(FAR_SERVERS, ROUTER))?;
        default_route(&router, at(self.network, LB))?;
        forward(&router)?;
        narrow(&router, FAR_SERVERS, mtu)?;
        route(&self.lb, FAR_SERVERS, self.network)?;
        self.servers = vec![server];
        self.addresses = vec![at(FAR_SERVERS, FIRST_SERVER)];
        Ok(router)
    }
}

/// The router's `eth1` takes packets of `mtu` bytes in both directions, but passes only on what
/// its route allows: a link with a smaller MTU would lose large packets that come from its other
/// end without a word.
fn narrow(router: &Netns, network: [u8; 3], mtu: u32) -> Result<()> {
    let (four, six) = (at(network, 0), beside(at(network, 0)));
    router.ip(&format!("route replace {four}/24 dev eth1 mtu lock {mtu}"))?;
    router.ip(&format!("-6 route replace {six}/64 dev eth1 metric 1 mtu lock {mtu}"))?;
    Ok(())
}

fn route(netns: &Netns, to: [u8; 3], from: [u8; 3]) -> Result<()> {
    let gateway = at(from, ROUTER);
    netns.ip(&format!("route add {}/24 via {gateway}", at(to, 0)))?;
    netns.ip(&format!("-6 route add {}/64 via {}", beside(at(to, 0)), beside(gateway)))?;
    Ok(())
}
