//! From a server's address to its next hop's MAC address, and keeping that knowledge fresh.
//!
//! The kernel sends nothing of its own to a DR server, so it would let the neighbour entry go
//! stale and collect it. Every watched next hop is therefore checked now and then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use netlink_packet_route::neighbour::NeighbourState;
use tokio::time::Instant;

use super::kernel::{Kernel, Route};
use super::view::{HopKey, LinkInfo, Neighbour, View};
use super::{Path, Resolution};

/// A stale entry is checked after this time.
const CHECK_STALE: Duration = Duration::from_secs(12);
/// A hop that does not answer is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// Requests under way at the same time.
const AT_ONCE: usize = 64;
/// Hops asked in one round, so that a large farm does not make a burst of ARP.
const ROUND: usize = 512;

/// What is known of a next hop beyond the kernel's entry for it.
#[derive(Clone, Copy, Debug, Default)]
struct Hop {
    /// The last MAC address that worked.
    mac: Option<[u8; 6]>,
    /// The kernel has asked and got no answer.
    lost: bool,
    /// When resolution was last provoked.
    asked: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Target {
    route: Route,
    told: Option<Resolution>,
}

/// Every watched destination.
#[derive(Debug, Default)]
pub struct Paths {
    targets: BTreeMap<IpAddr, Target>,
    hops: HashMap<HopKey, Hop>,
}

impl Paths {
    /// Replaces the set of destinations; asks for the routes of those that are new.
    pub async fn watch(&mut self, kernel: &Kernel, view: &View, destinations: Vec<IpAddr>) {
        let wanted: HashSet<IpAddr> = destinations.into_iter().collect();
        self.targets.retain(|destination, _| wanted.contains(destination));
        let new = wanted.into_iter().filter(|d| !self.targets.contains_key(d)).collect();
        self.ask_routes(kernel, view, new).await;
    }

    /// Asks for every route again: routes, links or addresses have changed.
    pub async fn ask_all(&mut self, kernel: &Kernel, view: &View) {
        let all = self.targets.keys().copied().collect();
        self.ask_routes(kernel, view, all).await;
    }

    async fn ask_routes(&mut self, kernel: &Kernel, view: &View, which: Vec<IpAddr>) {
        let answers: Vec<(IpAddr, Route)> = stream::iter(which)
            .map(|d| async move { (d, kernel.route_to(d).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (destination, route) in answers {
            let told = self.targets.remove(&destination).and_then(|target| target.told);
            self.targets.insert(destination, Target { route, told });
        }
        self.follow_hops(view);
    }

    /// Starts to follow hops that are new and forgets those that nothing uses.
    fn follow_hops(&mut self, view: &View) {
        let used: HashSet<HopKey> = self.targets.values().filter_map(Target::hop).collect();
        self.hops.retain(|key, _| used.contains(key));
        for key in used {
            self.hops.entry(key).or_insert_with(|| Hop::first(view.neighbours.get(&key)));
        }
    }

    /// Takes in a change of a neighbour entry.
    pub fn neighbour(&mut self, key: HopKey, before: Option<Neighbour>, now: Option<Neighbour>) {
        if let Some(hop) = self.hops.get_mut(&key) {
            hop.update(before, now);
        }
    }

    /// An interface lost its carrier or went away: what was known behind it may be another machine
    /// when it comes back.
    pub fn forget(&mut self, ifindex: u32) {
        for (key, hop) in &mut self.hops {
            if key.0 == ifindex {
                *hop = Hop::default();
            }
        }
    }

    /// Starts again from what the kernel has now, after announcements were lost.
    pub fn resynchronise(&mut self, view: &View) {
        for (key, hop) in &mut self.hops {
            let entry = view.neighbours.get(key);
            let fresh = Hop::first(entry);
            // An entry in the middle of being resolved says nothing against the old address.
            hop.mac = fresh.mac.or(if fresh.lost { None } else { hop.mac });
            hop.lost = fresh.lost;
        }
    }

    /// Hops whose resolution has to be provoked now; they count as asked.
    pub fn due(&mut self, view: &View, now: Instant) -> Vec<HopKey> {
        let mut due = Vec::new();
        for (key, hop) in &mut self.hops {
            if !view.links.get(&key.0).is_some_and(|link| link.usable()) {
                continue;
            }
            let Some(pause) = pause_before_asking(view.neighbours.get(key)) else { continue };
            // A stale entry that was never asked about may have been stale for hours.
            if hop.asked.is_none_or(|asked| now.duration_since(asked) >= pause) {
                hop.asked = Some(now);
                due.push(*key);
                if due.len() == ROUND {
                    break;
                }
            }
        }
        due
    }

    /// Provokes the resolution of hops.
    pub async fn provoke(kernel: &Kernel, hops: Vec<HopKey>) {
        stream::iter(hops)
            .for_each_concurrent(AT_ONCE, |(ifindex, address)| async move {
                if let Err(error) = kernel.provoke(ifindex, address).await {
                    tracing::debug!(ifindex, %address, %error, "cannot ask for a next hop");
                }
            })
            .await;
    }

    /// Resolutions that differ from what was told before; they count as told.
    pub fn changes(&mut self, view: &View, attached: &[String]) -> Vec<(IpAddr, Resolution)> {
        let mut changes = Vec::new();
        for (destination, target) in &mut self.targets {
            let resolution = resolve(*destination, &target.route, view, attached, &self.hops);
            if target.told.as_ref() != Some(&resolution) {
                target.told = Some(resolution.clone());
                changes.push((*destination, resolution));
            }
        }
        changes
    }
}

impl Target {
    fn hop(&self) -> Option<HopKey> {
        match self.route {
            Route::Via { ifindex, next_hop, .. } => Some((ifindex, next_hop)),
            Route::Nowhere(_) => None,
        }
    }
}

impl Hop {
    fn first(entry: Option<&Neighbour>) -> Self {
        Self {
            mac: entry.and_then(Neighbour::usable_mac),
            lost: entry.is_some_and(|entry| entry.state == NeighbourState::Failed),
            asked: None,
        }
    }

    fn update(&mut self, before: Option<Neighbour>, now: Option<Neighbour>) {
        let Some(now) = now else {
            // Collected or flushed: ask at once, keep the address until the answer.
            self.asked = None;
            return;
        };
        if let Some(mac) = now.usable_mac() {
            self.mac = Some(mac);
            self.lost = false;
            if now.state != NeighbourState::Stale {
                // Alive at this moment: the time to the next check starts here.
                self.asked = Some(Instant::now());
            }
        } else if now.state == NeighbourState::Failed {
            let unanswered = before.is_none_or(|before| {
                matches!(
                    before.state,
                    NeighbourState::Probe | NeighbourState::Incomplete | NeighbourState::Failed
                )
            });
            if unanswered {
                self.mac = None;
                self.lost = true;
            } else {
                // Made invalid from outside (`ip neigh flush`), not by silence.
                self.asked = None;
            }
        }
    }
}

/// How long after the last request a hop should be asked again; none while the kernel is at it.
fn pause_before_asking(entry: Option<&Neighbour>) -> Option<Duration> {
    use NeighbourState::{Delay, Incomplete, Noarp, Permanent, Probe, Reachable, Stale};
    match entry.map(|entry| entry.state) {
        Some(Reachable | Delay | Probe | Permanent | Noarp | Incomplete) => None,
        Some(Stale) => Some(CHECK_STALE),
        _ => Some(ASK_AGAIN),
    }
}

/// By which interface the data path reaches a link, and with which VLAN identifier (0: no tag): a
/// VLAN's frames leave tagged by the interface under it, since XDP does not run on the VLAN itself.
fn way_out(view: &View, attached: &[String], link: &LinkInfo) -> Result<(u32, u16), String> {
    let Some(vlan) = link.vlan.filter(|_| !attached.contains(&link.name)) else {
        return Ok((link.ifindex, 0));
    };
    let name = &link.name;
    let Some(under) = view.links.get(&vlan.under) else {
        return Err(format!("{name} is a VLAN on an interface of another network namespace"));
    };
    if !vlan.customer || under.vlan.is_some() {
        return Err(format!(
            "{name} has an 802.1ad tag, or is a VLAN within a VLAN: medlb sends to real servers \
             untagged or with one 802.1Q tag"
        ));
    }
    if !attached.contains(&under.name) {
        return Err(format!(
            "{name} is a VLAN on {0}, which medlb is not attached to: add {0} to `interfaces`",
            under.name
        ));
    }
    Ok((under.ifindex, vlan.id))
}

fn resolve(
    destination: IpAddr,
    route: &Route,
    view: &View,
    attached: &[String],
    hops: &HashMap<HopKey, Hop>,
) -> Resolution {
    let (ifindex, next_hop, on_link, source) = match route {
        Route::Nowhere(problem) => return Resolution::problem(None, problem.clone()),
        Route::Via { ifindex, next_hop, on_link, source } => {
            (*ifindex, *next_hop, *on_link, *source)
        }
    };
    let name = view.name_of(ifindex);
    let Some(link) = view.links.get(&ifindex) else {
        return Resolution::problem(None, format!("the way to {destination}, {name}, is gone"));
    };
    let Some(src_mac) = link.mac.filter(|_| !link.loopback) else {
        let problem = format!("the route to {destination} leaves by {name}, which is not Ethernet");
        return Resolution::problem(None, problem);
    };
    let (out, vlan) = match way_out(view, attached, link) {
        Ok(way) => way,
        Err(problem) => return Resolution::problem(None, problem),
    };
    let mut path = Path { ifindex: out, vlan, src_mac, dst_mac: None, on_link, source };
    if !link.usable() {
        let what = if link.up { "has no carrier" } else { "is down" };
        return Resolution::problem(
            Some(path),
            format!("{name}, the way to {destination}, {what}"),
        );
    }
    let hop = hops.get(&(ifindex, next_hop)).copied().unwrap_or_default();
    path.dst_mac = hop.mac;
    if hop.mac.is_some() {
        return Resolution { path: Some(path), problem: None };
    }
    let who = if on_link { destination.to_string() } else { format!("the next hop {next_hop}") };
    let what = if next_hop.is_ipv4() { "ARP" } else { "neighbour discovery" };
    let problem = if hop.lost {
        format!("{who} does not answer {what} on {name}")
    } else {
        format!("{who} has not answered {what} on {name} yet")
    };
    Resolution::problem(Some(path), problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::view::Vlan;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn entry(mac: Option<[u8; 6]>, state: NeighbourState) -> Option<Neighbour> {
        Some(Neighbour { mac, state })
    }

    fn link(ifindex: u32, name: &str, vlan: Option<Vlan>) -> LinkInfo {
        LinkInfo {
            ifindex,
            name: name.into(),
            mac: Some([2; 6]),
            mtu: 1500,
            up: true,
            carrier: true,
            master: None,
            loopback: false,
            vlan,
        }
    }

    #[test]
    fn a_server_on_a_vlan_is_reached_by_the_interface_under_it_with_its_tag() {
        let vlan = |id, under| Vlan { id, customer: true, under };
        let mut view = View::default();
        for link in [
            link(2, "eth0", None),
            link(3, "eth1", None),
            link(7, "eth0.85", Some(vlan(85, 2))),
            link(8, "eth1.9", Some(vlan(9, 3))),
            link(9, "eth0.85.4", Some(vlan(4, 7))),
            link(10, "eth0.s", Some(Vlan { customer: false, ..vlan(5, 2) })),
        ] {
            view.links.insert(link.ifindex, link);
        }
        let destination: IpAddr = "10.85.0.9".parse().unwrap();
        let to =
            |ifindex| Route::Via { ifindex, next_hop: destination, on_link: true, source: None };
        let hop = Hop { mac: Some(MAC), ..Hop::default() };
        let hops: HashMap<HopKey, Hop> = (2..=10).map(|i| ((i, destination), hop)).collect();
        let attached = ["eth0".to_owned()];
        let found = |ifindex| resolve(destination, &to(ifindex), &view, &attached, &hops);
        let way = |ifindex| found(ifindex).path.map(|path| (path.ifindex, path.vlan, path.dst_mac));
        assert_eq!(way(2), Some((2, 0, Some(MAC))));
        assert_eq!(way(7), Some((2, 85, Some(MAC))));
        assert_eq!(way(3), Some((3, 0, Some(MAC))));
        let problem = |ifindex| found(ifindex).problem.unwrap();
        assert!(problem(8).contains("add eth1 to `interfaces`"), "{}", problem(8));
        assert!(problem(9).contains("a VLAN within a VLAN"), "{}", problem(9));
        assert!(problem(10).contains("802.1ad"), "{}", problem(10));
        // Attached to the VLAN itself (generic XDP), its frames have no tag.
        let itself = ["eth0".to_owned(), "eth0.85".to_owned()];
        let found = resolve(destination, &to(7), &view, &itself, &hops);
        assert_eq!(found.path.map(|path| (path.ifindex, path.vlan)), Some((7, 0)));
    }

    #[test]
    fn silence_loses_the_mac_and_a_flush_does_not() {
        let reachable = entry(Some(MAC), NeighbourState::Reachable);
        let failed = entry(None, NeighbourState::Failed);
        let mut hop = Hop::default();
        hop.update(None, reachable);
        hop.update(reachable, failed);
        hop.update(failed, None);
        assert_eq!(hop.mac, Some(MAC), "a flushed entry keeps its address until the answer");
        assert!(hop.asked.is_none(), "and is asked at once");
        hop.update(entry(None, NeighbourState::Incomplete), failed);
        assert_eq!((hop.mac, hop.lost), (None, true));
    }

    #[test]
    fn going_stale_changes_nothing_but_the_next_check() {
        let mut hop = Hop::default();
        let reachable = entry(Some(MAC), NeighbourState::Reachable);
        hop.update(None, reachable);
        let asked = hop.asked;
        hop.update(reachable, entry(Some(MAC), NeighbourState::Stale));
        assert_eq!((hop.mac, hop.lost, hop.asked), (Some(MAC), false, asked));
    }
}
