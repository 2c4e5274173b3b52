//! VIPs on interfaces. What was there before medlb stays when medlb goes; what medlb added is in a
//! [`Record`] before the kernel hears of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::time::Duration;

use tokio::time::Instant;

use super::kernel::{Kernel, full_length};
use super::view::{AddressInfo, View};
use super::vip_record::Record;

/// An address that somebody keeps taking away is put back no more often than this.
const PUT_BACK: Duration = Duration::from_secs(1);

/// A virtual service's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// The interface to put it on; none: chosen by subnet.
    pub preferred_interface: Option<String>,
}

/// A VIP that is not on an interface, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipProblem {
    /// The VIP.
    pub address: IpAddr,
    /// What is wrong and what to do, in words.
    pub problem: String,
}

/// The VIPs that should be there.
#[derive(Debug)]
pub struct Vips {
    record: Record,
    wanted: BTreeMap<IpAddr, Option<String>>,
    /// Nothing is added or removed before the first set of VIPs is known.
    started: bool,
    put_back_at: HashMap<IpAddr, Instant>,
    /// Interface of every VIP that is in place.
    placed: BTreeMap<IpAddr, u32>,
    problems: BTreeMap<IpAddr, String>,
}

impl Vips {
    /// Starts from what the state directory says was added earlier.
    pub fn new(state_dir: &FilePath) -> Self {
        let record = Record::load(state_dir).unwrap_or_else(|error| {
            tracing::error!(error = format!("{error:#}"), "VIPs added earlier are unknown");
            Record::empty(state_dir)
        });
        Self {
            record,
            wanted: BTreeMap::new(),
            started: false,
            put_back_at: HashMap::new(),
            placed: BTreeMap::new(),
            problems: BTreeMap::new(),
        }
    }

    /// Replaces the set of VIPs. [`Vips::reconcile`] makes it so.
    pub fn want(&mut self, vips: Vec<Vip>) {
        self.started = true;
        self.wanted = vips.into_iter().map(|vip| (vip.address, vip.preferred_interface)).collect();
        // Once more: a daemon that starts again announces what its predecessor added.
        self.placed.clear();
    }

    /// Where every VIP in place is.
    pub fn placed(&self) -> &BTreeMap<IpAddr, u32> {
        &self.placed
    }

    /// VIPs that are not in place.
    pub fn problems(&self) -> Vec<VipProblem> {
        self.problems
            .iter()
            .map(|(address, problem)| VipProblem { address: *address, problem: problem.clone() })
            .collect()
    }

    /// Whether something is left to try again later.
    pub fn unfinished(&self) -> bool {
        self.started && self.wanted.keys().any(|vip| !self.placed.contains_key(vip))
    }

    /// Makes interfaces have what is wanted. Returns the VIPs that came into place, to be
    /// announced.
    pub async fn reconcile(
        &mut self,
        kernel: &Kernel,
        view: &mut View,
        attached: &[String],
    ) -> Vec<(IpAddr, u32)> {
        if !self.started {
            return Vec::new();
        }
        self.problems.clear();
        self.take_away(kernel, view, attached).await;
        let mut missing = BTreeSet::new();
        let mut arrived = Vec::new();
        for vip in self.wanted.keys().copied() {
            match view.addresses.iter().find(|address| address.address == vip) {
                Some(found) => {
                    if self.placed.insert(vip, found.ifindex) != Some(found.ifindex) {
                        arrived.push((vip, found.ifindex));
                    }
                }
                None => {
                    missing.insert(vip);
                }
            }
        }
        arrived.extend(self.add(kernel, view, attached, missing).await);
        arrived
    }

    /// Takes away what medlb added and what is not wanted any more, or not there.
    async fn take_away(&mut self, kernel: &Kernel, view: &mut View, attached: &[String]) {
        let places: BTreeSet<String> =
            view.places(attached).into_iter().map(|link| link.name.clone()).collect();
        let leaving: Vec<(IpAddr, String)> = self
            .record
            .added()
            .iter()
            .filter(|(vip, interface)| match self.wanted.get(vip) {
                None => true,
                Some(Some(preferred)) => preferred != *interface,
                Some(None) => !attached.contains(interface) && !places.contains(*interface),
            })
            .map(|(vip, interface)| (*vip, interface.clone()))
            .collect();
        if leaving.is_empty() {
            return;
        }
        for (vip, interface) in leaving {
            self.placed.remove(&vip);
            match remove(kernel, view, vip, &interface).await {
                Ok(()) => {
                    self.record.remove(vip);
                    tracing::info!(%vip, %interface, "VIP removed");
                }
                Err(error) => {
                    tracing::error!(%vip, %interface, %error, "cannot remove a VIP");
                }
            }
        }
        self.save();
    }

    async fn add(
        &mut self,
        kernel: &Kernel,
        view: &mut View,
        attached: &[String],
        missing: BTreeSet<IpAddr>,
    ) -> Vec<(IpAddr, u32)> {
        let now = Instant::now();
        let mut orders = Vec::new();
        for vip in missing {
            let earlier = self.record.added().get(&vip);
            let put_back = self.placed.remove(&vip).is_some() || earlier.is_some();
            if self.put_back_at.get(&vip).is_some_and(|at| now.duration_since(*at) < PUT_BACK) {
                self.problems.insert(vip, "is removed by something else again and again".into());
                continue;
            }
            let preferred = self.wanted.get(&vip).cloned().flatten();
            // Back to where it was: an IPv6 subnet that went with its link would not lead there.
            let place = preferred.as_ref().or(earlier);
            let Some((name, ifindex)) = choose(view, attached, vip, place.map(String::as_str))
            else {
                self.problems.insert(vip, no_interface(attached, place.map(String::as_str)));
                continue;
            };
            if put_back {
                self.put_back_at.insert(vip, now);
                tracing::warn!(%vip, interface = %name, "VIP was removed by something else than medlb; putting it back");
            }
            self.record.insert(vip, name.clone());
            orders.push((
                AddressInfo { address: vip, prefix_length: full_length(vip), ifindex },
                name,
            ));
        }
        if orders.is_empty() {
            return Vec::new();
        }
        self.save(); // Before the kernel acts, so that a crash in between leaves no orphan.
        let mut arrived = Vec::new();
        let mut failed = false;
        for (vip, interface) in orders {
            match kernel.add_vip(vip).await {
                Ok(()) => tracing::info!(vip = %vip.address, %interface, "VIP added"),
                Err(error) => {
                    failed = true;
                    self.record.remove(vip.address);
                    if error.kind() != ErrorKind::AlreadyExists {
                        let problem = refusal(&interface, vip.address, &error);
                        tracing::error!(vip = %vip.address, %problem, "VIP is not in place");
                        self.problems.insert(vip.address, problem);
                        continue;
                    }
                }
            }
            view.add_address(vip);
            self.placed.insert(vip.address, vip.ifindex);
            arrived.push((vip.address, vip.ifindex));
        }
        if failed {
            self.save();
        }
        arrived
    }

    fn save(&self) {
        if let Err(error) = self.record.save() {
            // A VIP that works is worth more than one that teardown would find after a crash.
            tracing::error!(error = format!("{error:#}"), "VIPs are not on record");
        }
    }
}

/// Takes a VIP off the interface of that name, if both are there.
async fn remove(
    kernel: &Kernel,
    view: &mut View,
    vip: IpAddr,
    interface: &str,
) -> std::io::Result<()> {
    let Some(link) = view.link_named(interface) else { return Ok(()) };
    let address =
        AddressInfo { address: vip, prefix_length: full_length(vip), ifindex: link.ifindex };
    if view.addresses.binary_search(&address).is_ok() {
        kernel.remove_vip(address).await?;
        view.remove_address(address);
    }
    Ok(())
}

/// The interface for a VIP: the preferred one; the attached one, or the VLAN on one, whose subnet
/// it is in; the first.
fn choose(
    view: &View,
    attached: &[String],
    vip: IpAddr,
    preferred: Option<&str>,
) -> Option<(String, u32)> {
    if let Some(name) = preferred {
        return view.link_named(name).map(|link| (link.name.clone(), link.ifindex));
    }
    let places = view.places(attached);
    let links = || places.iter().copied();
    let in_subnet = |ifindex: u32| {
        view.addresses.iter().any(|address| {
            address.ifindex == ifindex
                && address.prefix_length < full_length(vip)
                && address.subnet_contains(vip)
        })
    };
    links()
        .find(|link| in_subnet(link.ifindex))
        .or_else(|| links().next())
        .map(|link| (link.name.clone(), link.ifindex))
}

fn no_interface(attached: &[String], preferred: Option<&str>) -> String {
    match preferred {
        Some(name) => format!("there is no interface {name}"),
        None => format!("none of the interfaces {} exists", attached.join(", ")),
    }
}

fn refusal(interface: &str, vip: IpAddr, error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) if vip.is_ipv6() => format!(
            "the kernel does not let {vip} be added to {interface}: {error}; \
             is net.ipv6.conf.{interface}.disable_ipv6 set?"
        ),
        _ => format!("the kernel does not let {vip} be added to {interface}: {error}"),
    }
}

/// Takes away every VIP that medlb added and that the state directory knows of, and the record
/// itself. Returns the VIPs that were on an interface. For `teardown`, with no daemon running.
///
/// # Errors
/// The record cannot be read, or the kernel does not let an address go; then the record keeps the
/// addresses that are still there.
pub async fn release_vips(state_dir: &FilePath) -> anyhow::Result<Vec<IpAddr>> {
    let mut record = Record::load(state_dir)?;
    let kernel = Kernel::connect()?;
    let mut view = kernel.dump().await?;
    let mut released = Vec::new();
    let mut failures = Vec::new();
    for (vip, interface) in record.added().clone() {
        let before = view.addresses.len();
        match remove(&kernel, &mut view, vip, &interface).await {
            Ok(()) => {
                record.remove(vip);
                if view.addresses.len() < before {
                    released.push(vip);
                }
            }
            Err(error) => failures.push(format!("{vip} on {interface}: {error}")),
        }
    }
    if failures.is_empty() {
        record.erase()?;
        return Ok(released);
    }
    record.save()?;
    anyhow::bail!("cannot remove VIPs: {}", failures.join("; "))
}
