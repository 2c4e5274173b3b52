//! One contender's client, machine in the middle, and server.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::helpers::{self, Helpers};
use crate::lab::{Arms, Medlb, Method, Process, Site, report, run, sibling, wait_for};

const PORT: u16 = 8080;
/// What an error of `nft` may mean.
const NFT: &str = "nftables is needed: `apt-get install nftables`";

/// Who stands between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// Nobody: they are on one LAN.
    Direct,
    /// This program.
    Medlb(Method),
    /// The kernel, which translates the destination.
    Dnat,
    /// And the source.
    Masquerade,
    /// The kernel, without translation.
    Routing,
    /// HAProxy in TCP mode.
    Haproxy,
}

impl Contender {
    /// All of them.
    pub(super) const ALL: [Self; 8] = [
        Self::Direct,
        Self::Medlb(Method::Dr),
        Self::Medlb(Method::Nat),
        Self::Medlb(Method::Snat),
        Self::Routing,
        Self::Dnat,
        Self::Masquerade,
        Self::Haproxy,
    ];

    /// For tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct, one LAN",
            Self::Medlb(Method::Dr) => "medlb, DR, one LAN",
            Self::Medlb(Method::Nat) => "medlb, NAT",
            Self::Medlb(Method::Snat) => "medlb, SNAT",
            Self::Dnat => "nftables DNAT",
            Self::Masquerade => "nftables DNAT + masquerade",
            Self::Routing => "routing",
            Self::Haproxy => "HAProxy, TCP mode",
        }
    }

    /// HAProxy need not be.
    pub(super) fn installed(self) -> bool {
        self != Self::Haproxy || run("haproxy", &["-v"]).is_ok()
    }

    /// The network that it is at home in.
    fn site(self) -> Result<Site> {
        match self {
            Self::Direct | Self::Medlb(Method::Dr) => Site::build(Method::Dr, Arms::One, 1),
            Self::Medlb(method) => Site::build(method, Arms::Two, 1),
            _ => Site::build(Method::Nat, Arms::Two, 1),
        }
    }
}

/// A contender, set up.
pub(super) struct Place {
    /// Who.
    pub contender: Contender,
    to: SocketAddr,
    server: Process,
    haproxy: Option<Process>,
    helpers: Helpers,
    medlb: Option<Medlb>,
    /// Last, so that it goes last.
    site: Site,
}

impl Place {
    /// Builds everything and makes a connection.
    pub(super) fn build(contender: Contender) -> Result<Self> {
        let site = contender.site()?;
        let any = format!("0.0.0.0:{PORT}");
        let command = ["serve", "--listen", &any];
        let mut server = site.servers[0].spawn("load", sibling("load")?, &command)?;
        wait_for("the server", Duration::from_secs(10), || {
            ensure!(server.running(), "it ended: {}", server.log());
            Ok(server.log().contains("listening").then_some(()))
        })?;
        // Each connection has a port of its own, and the next may have it again at once.
        site.client
            .run("sh", &["-c", "echo 2000 65000 > /proc/sys/net/ipv4/ip_local_port_range"])?;
        let (mut medlb, mut haproxy, mut to) = (None, None, site.vip);
        match contender {
            Contender::Direct => to = site.addresses[0],
            Contender::Medlb(_) => {
                let ports = PORT.to_string();
                let service = site.service("LOAD", &ports, &["health_check: none"]);
                let reserve = "echo 10000-65535 > /proc/sys/net/ipv4/ip_local_reserved_ports";
                site.lb.run("sh", &["-c", reserve])?;
                let config = site.config(&service);
                // Closed connections keep their entries and SNAT ports for a while.
                let config = config.replace(
                    "maximum_flows: 16384",
                    "maximum_flows: 262144\n  snat_ports: 10000-65535",
                );
                medlb = Some(Medlb::start(&site, &config)?);
            }
            Contender::Dnat => translate(&site, false)?,
            Contender::Masquerade => translate(&site, true)?,
            Contender::Routing => to = site.addresses[0],
            Contender::Haproxy => haproxy = Some(proxy(&site)?),
        }
        if contender == Contender::Routing {
            let network = format!("route add {to}/32 via 10.77.1.2");
            site.client.ip(&network)?;
        }
        let to = SocketAddr::new(IpAddr::V4(to), PORT);
        let helpers = Helpers::find()?;
        let mut place = Self { contender, to, server, haproxy, helpers, medlb, site };
        wait_for("a connection", Duration::from_secs(15), || {
            if let Some(proxy) = &mut place.haproxy {
                ensure!(proxy.running(), "HAProxy ended: {}", proxy.log());
            }
            let report = place.ask(1, Duration::from_millis(50))?;
            Ok((report["failed"] == 0 && report["done"] != 0).then_some(()))
        })?;
        Ok(place)
    }

    /// Loads it from so many clients, and returns what they say.
    pub(super) fn ask(&mut self, clients: usize, length: Duration) -> Result<Value> {
        let (to, clients) = (self.to.to_string(), clients.to_string());
        let length = length.as_millis().to_string();
        let command = ["ask", "--to", &to, "--threads", &clients, "--milliseconds", &length];
        report(&mut self.site.client.spawn("ask", sibling("load")?, &command)?)
    }

    /// CPU time of what does not end with a measurement: server, proxy, the kernel's own threads.
    pub(super) fn spent(&self) -> Result<Duration> {
        let mut sum = self.helpers.spent()?;
        for process in std::iter::once(&self.server).chain(&self.haproxy) {
            for task in fs::read_dir(format!("/proc/{}/task", process.pid()))? {
                sum += helpers::spent(&task?.path().join("schedstat"))?;
            }
        }
        Ok(sum)
    }

    /// What medlb has counted, for the message of an error.
    pub(super) fn verdicts(&self) -> String {
        let stats = self.medlb.as_ref().and_then(|medlb| medlb.stats().ok());
        let counts = stats.and_then(|stats| stats["verdicts"].as_object().cloned());
        let moved = counts.into_iter().flatten().filter(|(_, count)| *count != 0);
        moved.map(|(name, count)| format!(" {name} {count}")).collect()
    }

    /// No packet had a wrong checksum.
    pub(super) fn check(&self) -> Result<()> {
        match self.contender {
            Contender::Medlb(_) => self.site.check_counters(),
            _ => Ok(()),
        }
    }
}

/// The address and the rules of nftables' translation.
fn translate(site: &Site, masquerade: bool) -> Result<()> {
    let (vip, real) = (site.vip, site.addresses[0]);
    site.lb.ip(&format!("addr add {vip}/32 dev eth0"))?;
    let mut text = format!(
        "table ip balance {{\n\
         chain before {{ type nat hook prerouting priority dstnat;\n\
         ip daddr {vip} tcp dport {PORT} dnat to {real}\n}}\n"
    );
    if masquerade {
        text +=
            "chain after { type nat hook postrouting priority srcnat; oifname eth1 masquerade\n}\n";
    }
    text += "}\n";
    site.lb.run("sh", &["-c", &format!("echo '{text}' | nft -f -")]).context(NFT).map(drop)
}

/// HAProxy as Debian has it, with as many threads as there are CPUs.
fn proxy(site: &Site) -> Result<Process> {
    let (vip, real) = (site.vip, site.addresses[0]);
    site.lb.ip(&format!("addr add {vip}/32 dev eth0"))?;
    site.lb.run("sh", &["-c", "echo 2000 65000 > /proc/sys/net/ipv4/ip_local_port_range"])?;
    let text = format!(
        "global\n    maxconn 1000\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\
         listen load\n    bind {vip}:{PORT}\n    server one {real}:{PORT}\n"
    );
    let path = site.lab.directory().join("haproxy.cfg");
    fs::write(&path, text)?;
    let path = path.to_str().context("a path that is not text")?.to_owned();
    let started = site.lb.spawn("haproxy", "haproxy", &["-db", "-f", &path]);
    started.context("HAProxy is needed: `apt-get install haproxy`")
}
