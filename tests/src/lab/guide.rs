//! The network that one of the files under `examples/` describes: every address of the file exists,
//! every real server runs, and a client stands outside of all of its subnets.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_yaml::Value;

use super::{Lab, Netns, Pass, Process, wait_for};

/// Where the client stands.
const CLIENT: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 10);
const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guides/peer.py");
/// Connects, says something, prints the answer.
const ASK: &str = "import socket, sys\n\
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)\n\
    s.sendall(b'who is there?')\n\
    print(s.makefile().readline())";

/// A virtual service of the file.
#[derive(Debug)]
pub struct Promised {
    /// `label`.
    pub label: String,
    /// `address`.
    pub vip: Ipv4Addr,
    /// Every port of `ports`.
    pub ports: Vec<u16>,
    /// `forwarding_method`.
    pub method: String,
    /// `source_address`.
    pub source: Option<Ipv4Addr>,
    /// Addresses of the real servers.
    pub reals: Vec<Ipv4Addr>,
    /// Its health check is a DICOM C-ECHO, and so its servers speak DICOM.
    pub dicom: bool,
    check_port: Option<u16>,
}

/// A built network.
#[derive(Debug)]
pub struct Guide {
    /// The enabled services of the file.
    pub services: Vec<Promised>,
    /// The client's namespace; its link is `eth0`.
    pub client: Netns,
    /// medlb's, with the links of the file.
    pub lb: Netns,
    links: Vec<String>,
    switch: Netns,
    text: String,
    peers: Vec<Process>,
    next: u32,
    passes: Vec<Pass>,
    /// Last, so that it goes last.
    pub lab: Lab,
}

impl Guide {
    /// Builds what `examples/NAME` describes and starts its servers.
    ///
    /// # Errors
    /// The file has another shape than this reads, or a tool fails.
    pub fn build(name: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let file: Value = serde_yaml::from_str(&text)?;
        let services = services(&file)?;
        let links: Vec<String> = serde_yaml::from_value(file["interfaces"].clone())?;
        let lab = Lab::new()?;
        let switch = lab.namespace("sw")?;
        let mut guide = Self {
            client: lab.namespace("client")?,
            lb: lab.namespace("lb")?,
            services,
            links,
            switch,
            text,
            peers: Vec::new(),
            next: 0,
            passes: Vec::new(),
            lab,
        };
        guide.build_lb()?;
        guide.plug(&guide.client.clone(), 0, CLIENT)?;
        guide.build_servers()?;
        Ok(guide)
    }

    /// The file's text with paths of this laboratory and quick checks.
    pub fn config(&self) -> String {
        let directory = self.lab.directory().display();
        format!(
            "global:\n  socket: {directory}/medlb.sock\n  state_dir: {directory}/state\n  \
             pin_dir: {}\n  maximum_flows: 16384\n  \
             defaults: {{interval: 1s, timeout: 900ms, rise: 1, fall: 3}}\n{}",
            self.lab.pins().display(),
            self.text
        )
    }

    /// Asks a port of a service from the client and returns the two ends of the connection as its
    /// server saw them.
    ///
    /// # Errors
    /// No answer.
    pub fn ask(&self, from: &Netns, to: Ipv4Addr, port: u16) -> Result<(Ipv4Addr, Ipv4Addr)> {
        let (to, port) = (to.to_string(), port.to_string());
        let text = from.run("/usr/bin/python3", &["-c", ASK, &to, &port])?;
        let (own, other) = text.trim().split_once(' ').context("no answer")?;
        Ok((own.parse()?, other.parse()?))
    }

    /// A host behind medlb that opens connections itself, with medlb as its gateway; and the
    /// address outside that it can connect to, where `port` is served.
    ///
    /// # Errors
    /// A tool fails.
    pub fn insider(&mut self, address: Ipv4Addr, port: u16) -> Result<(Netns, Ipv4Addr)> {
        let arm = self.links.len() - 1;
        self.lb.ip(&format!("addr add {}/24 dev {}", gateway(address), self.links[arm]))?;
        let netns = self.lab.namespace("in")?;
        self.plug(&netns, arm, address)?;
        self.serve(&self.client.clone(), &[port])?;
        Ok((netns, CLIENT))
    }

    fn build_lb(&mut self) -> Result<()> {
        for (arm, link) in self.links.iter().enumerate() {
            let (bridge, port) = (format!("br{arm}"), format!("p-lb{arm}"));
            self.switch.ip(&format!("link add {bridge} type bridge forward_delay 0"))?;
            self.switch.ip(&format!("link set {bridge} up"))?;
            self.lb.join(link, &self.switch, &port)?;
            self.switch.ip(&format!("link set {port} master {bridge}"))?;
            self.switch.run("ethtool", &["-K", &port, "tx", "off", "gro", "on"])?;
            self.passes.push(Pass::attach(&self.switch, &port)?);
        }
        let _ = self.switch.sysctl("bridge/bridge-nf-call-iptables", 0);
        self.lb.sysctl("ipv4/ip_forward", 1)?;
        // VIPs and clients are on the first link, servers on the last.
        let last = self.links.len() - 1;
        let mut own = BTreeSet::from([(gateway(CLIENT), 0)]);
        for service in &self.services {
            own.insert((gateway(service.vip), 0));
        }
        for service in &self.services {
            own.extend(service.reals.iter().map(|&real| (gateway(real), last)));
        }
        let mut given = BTreeSet::new();
        for (address, arm) in own {
            if given.insert(address) {
                self.lb.ip(&format!("addr add {address}/24 dev {}", self.links[arm]))?;
            }
        }
        Ok(())
    }

    /// One namespace for all services of the same real servers.
    fn build_servers(&mut self) -> Result<()> {
        let pools: BTreeSet<Vec<Ipv4Addr>> =
            self.services.iter().map(|service| service.reals.clone()).collect();
        let arm = self.links.len() - 1;
        for (number, reals) in pools.iter().enumerate() {
            let netns = self.lab.namespace(&format!("v{number}"))?;
            self.plug(&netns, arm, reals[0])?;
            for real in &reals[1..] {
                netns.ip(&format!("addr add {real}/24 dev eth0"))?;
            }
            let (mut plain, mut dicom) = (Vec::new(), Vec::new());
            for service in self.services.iter().filter(|service| service.reals == *reals) {
                let ports = if service.dicom { &mut dicom } else { &mut plain };
                ports.extend(service.ports.iter().copied().chain(service.check_port));
                if service.method == "dr" {
                    direct(&netns, service.vip)?;
                }
            }
            for port in dicom {
                let mut command = netns.command("storescp");
                command.args(["--ignore", "-dhl", &port.to_string()]);
                self.peers.push(netns.start(&format!("storescp-{port}"), &mut command)?);
                listening(&netns, port)?;
            }
            if !plain.is_empty() {
                self.serve(&netns, &plain)?;
            }
        }
        Ok(())
    }

    fn serve(&mut self, netns: &Netns, ports: &[u16]) -> Result<()> {
        let mut command = netns.command("/usr/bin/python3");
        command.arg(PEER).args(ports.iter().map(u16::to_string));
        self.peers.push(netns.start("peer", &mut command)?);
        ports.iter().try_for_each(|&port| listening(netns, port))
    }

    /// A cable to the bridge of one of medlb's links, an address, and medlb as the gateway.
    fn plug(&mut self, netns: &Netns, arm: usize, address: Ipv4Addr) -> Result<()> {
        self.next += 1;
        let port = format!("p{}", self.next);
        netns.join("eth0", &self.switch, &port)?;
        self.switch.ip(&format!("link set {port} master br{arm}"))?;
        netns.ip(&format!("addr add {address}/24 dev eth0"))?;
        netns.ip(&format!("route add default via {}", gateway(address))).map(drop)
    }
}

/// The VIP on the loopback, and replies that go past medlb, as they would by another router.
fn direct(netns: &Netns, vip: Ipv4Addr) -> Result<()> {
    netns.sysctl("ipv4/conf/all/arp_ignore", 1)?;
    netns.sysctl("ipv4/conf/all/arp_announce", 2)?;
    netns.ip(&format!("addr add {vip}/32 dev lo"))?;
    netns.ip(&format!("route add {CLIENT}/32 dev eth0")).map(drop)
}

fn listening(netns: &Netns, port: u16) -> Result<()> {
    let filter = format!("sport = :{port}");
    wait_for(&format!("a listener on port {port}"), Duration::from_secs(20), || {
        Ok((!netns.run("ss", &["-Htln", &filter])?.trim().is_empty()).then_some(()))
    })
}

/// medlb's own address in the /24 of another.
fn gateway(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, 2)
}

fn services(file: &Value) -> Result<Vec<Promised>> {
    let listed = file["virtual_services"].as_sequence().context("no virtual_services")?;
    let enabled = listed.iter().filter(|s| s["enabled"].as_bool() != Some(false));
    let services = enabled.map(|s| service(file, s)).collect::<Result<Vec<_>>>()?;
    ensure!(!services.is_empty(), "no service is enabled");
    Ok(services)
}

fn service(file: &Value, service: &Value) -> Result<Promised> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let check = match &service["health_check"] {
        Value::String(name) => &file["health_checks"][name.as_str()],
        other => other,
    };
    let reals = service["real_servers"].as_sequence().context("no real_servers")?;
    Ok(Promised {
        label: text(&service["label"]).context("no label")?,
        vip: text(&service["address"]).context("no address")?.parse()?,
        ports: ports(&service["ports"])?,
        method: text(&service["forwarding_method"]).context("no forwarding_method")?,
        source: text(&service["source_address"]).map(|source| source.parse()).transpose()?,
        reals: reals
            .iter()
            .map(|real| Ok(text(&real["address"]).context("no address")?.parse()?))
            .collect::<Result<_>>()?,
        dicom: check["type"] == "dicom-echo",
        check_port: check["port"].as_u64().map(u16::try_from).transpose()?,
    })
}

/// `104`, `"80,443,5014-5019"`.
fn ports(value: &Value) -> Result<Vec<u16>> {
    if let Some(port) = value.as_u64() {
        return Ok(vec![port.try_into()?]);
    }
    let mut all = Vec::new();
    for part in value.as_str().context("ports")?.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.trim().parse::<u16>()?..=last.trim().parse()?);
    }
    Ok(all)
}
