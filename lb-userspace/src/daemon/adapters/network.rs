//! The network behind its seam.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::api::model::{Finding, Level};
use crate::config::model::{Config, ForwardingMethod};
use crate::daemon::destinations;
use crate::daemon::seams::{self, Later, NetworkEvent, Next};
use crate::net::{self, LinkInfo, NetEvent, NetHandle, Resolution, Vip, VipProblem};

/// The monitor's handle, and what is wrong with VIPs.
pub struct Network {
    handle: NetHandle,
    problems: Arc<Mutex<Vec<VipProblem>>>,
    /// The configuration's servers and their fallbacks.
    servers: HashSet<IpAddr>,
    /// Next hops of outbound connections, the latest last.
    hops: VecDeque<IpAddr>,
}

/// How many next hops of outbound connections are kept resolved.
const HOPS: usize = 256;

/// Passes news on to the event loop.
pub fn start(
    handle: NetHandle,
    mut news: mpsc::UnboundedReceiver<NetEvent>,
) -> (Network, mpsc::UnboundedReceiver<NetworkEvent>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let problems = Arc::new(Mutex::new(Vec::new()));
    let noted = problems.clone();
    tokio::spawn(async move {
        while let Some(event) = news.recv().await {
            let Some(event) = translate(event, &noted) else { continue };
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    let (servers, hops) = (HashSet::new(), VecDeque::new());
    (Network { handle, problems, servers, hops }, receiver)
}

fn translate(event: NetEvent, noted: &Mutex<Vec<VipProblem>>) -> Option<NetworkEvent> {
    match event {
        NetEvent::PathsChanged(paths) => {
            let next = |resolution: Resolution| Next {
                path: resolution.path,
                problem: resolution.problem,
            };
            let paths = paths.into_iter().map(|(address, way)| (address, next(way)));
            Some(NetworkEvent::Paths(paths.collect()))
        }
        NetEvent::LinkChanged(link) => {
            let LinkInfo { name, up, carrier, mtu, .. } = link;
            info!(interface = %name, up, carrier, mtu, "interface changed");
            Some(NetworkEvent::Links)
        }
        NetEvent::LinkGone(link) => {
            warn!(interface = %link.name, "interface went away");
            Some(NetworkEvent::Links)
        }
        NetEvent::VipProblems(problems) => {
            for VipProblem { address, problem } in &problems {
                warn!(vip = %address, %problem, "a virtual address is not in place");
            }
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = problems;
            None
        }
        NetEvent::Resynchronised => None,
    }
}

/// The addresses that medlb puts on interfaces, each once: VIPs, however many services share them,
/// and the addresses that SNAT services and outbound connections leave with, since replies come
/// only to an address that answers ARP. What is there already is left as it is.
fn vips(config: &Config) -> Vec<Vip> {
    let managed = config.services.iter().filter(|s| s.enabled && s.manage_address);
    let outbound = config.outbound_snat.iter().map(|rule| rule.to_source);
    let sources = managed.clone().filter_map(|service| service.source_address);
    let addresses: BTreeSet<_> =
        managed.map(|service| service.address).chain(sources).chain(outbound).collect();
    let vip = |address| Vip { address, preferred_interface: None };
    addresses.into_iter().map(vip).collect()
}

impl Network {
    fn watch_all(&self) {
        let hops = self.hops.iter().filter(|hop| !self.servers.contains(hop));
        self.handle.watch(self.servers.iter().chain(hops).copied().collect());
    }
}

impl seams::Network for Network {
    fn watch(&mut self, config: &Config) {
        self.servers = destinations(config);
        if config.outbound_snat.is_empty() {
            self.hops.clear();
        }
        self.watch_all();
    }

    fn watch_more(&mut self, hops: Vec<IpAddr>) {
        for hop in hops {
            self.hops.retain(|known| *known != hop);
            self.hops.push_back(hop);
        }
        let surplus = self.hops.len().saturating_sub(HOPS);
        self.hops.drain(..surplus);
        self.watch_all();
    }

    fn set_vips(&mut self, config: &Config) -> Later<()> {
        let done = self.handle.set_vips(vips(config));
        Box::pin(async {
            done.await.ok(); // problems come as events, too
        })
    }

    fn doctor(&self, config: &Config) -> Later<Vec<Finding>> {
        let attached: Vec<String> = config.interfaces.iter().map(|i| i.name.clone()).collect();
        let translates = config
            .services
            .iter()
            .any(|s| s.enabled && s.forwarding_method != ForwardingMethod::Dr)
            || !config.outbound_snat.is_empty();
        let gateway = config
            .services
            .iter()
            .any(|s| s.enabled && s.forwarding_method == ForwardingMethod::Nat)
            || !config.outbound_snat.is_empty();
        // With one interface everything leaves by the one that it came in by.
        let one_arm = (gateway && attached.len() == 1).then(|| attached[0].clone());
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let links = self.handle.links();
        Box::pin(async move {
            let mut findings = sysctls(&attached, translates, one_arm.as_deref());
            findings.extend(problems.into_iter().map(|VipProblem { address, problem }| {
                let advice = "clients cannot reach this address until that is mended";
                Finding::bad(Level::Fail, format!("VIP {address}"), problem, advice)
            }));
            for name in attached {
                if let Some(link) = links.iter().find(|link| link.name == name)
                    && !link.usable()
                {
                    let what = if link.up { "has no carrier" } else { "is down" };
                    let advice = format!("check the cable, and `ip link set dev {name} up`");
                    let subject = format!("interface {name}");
                    findings.push(Finding::bad(Level::Fail, subject, what, advice));
                }
            }
            findings
        })
    }

    fn interface_name(&self, ifindex: u32) -> Option<String> {
        self.handle.link(ifindex).map(|link| link.name)
    }
}

/// Kernel settings that get in the way of forwarding. `one_arm`: the only interface, of a gateway.
fn sysctls(attached: &[String], translates: bool, one_arm: Option<&str>) -> Vec<Finding> {
    let mut advice = net::sysctl_advice(attached);
    advice.extend(one_arm.and_then(net::sysctl_advice_redirects));
    if advice.is_empty() {
        return vec![Finding::ok("sysctls", "nothing gets in the way")];
    }
    // Forwarding by the kernel matters only where packets need its routing table.
    let level = |key: &str| match key.contains("forward") && !translates {
        true => Level::Ok,
        false => Level::Warn,
    };
    let finding = |a: net::Advice| {
        Finding::bad(
            level(&a.key),
            format!("{} = {}", a.key, a.value),
            a.words,
            "sysctl(8), and a \
            file in /etc/sysctl.d to keep it",
        )
    };
    advice.into_iter().map(finding).filter(|finding| finding.level != Level::Ok).collect()
}
