//! What the control path knows of the network: next hops, links, VIP addresses. Netlink and raw
//! sockets live here and nowhere else.
//!
//! [`Net::start`] begins; a [`NetHandle`] says what to watch and which VIPs to keep, and
//! [`NetEvent`]s tell what changed. Interfaces are those of the network namespace of the thread
//! that starts it.

mod announce;
mod kernel;
mod local;
mod monitor;
mod paths;
mod sysctl;
#[cfg(test)]
mod tests;
mod view;
mod vip;
mod vip_record;
mod worker;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

pub use local::interface_exists;
pub use sysctl::{Advice, sysctl_advice, sysctl_advice_ports, sysctl_advice_redirects};
pub use view::{AddressInfo, LinkInfo};
pub use vip::{Vip, VipProblem, release_vips};

use monitor::Monitor;
use view::View;
use worker::{Command, Worker};

/// The next hop towards a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Egress interface: for a server on a VLAN the one under it.
    pub ifindex: u32,
    /// Identifier of the VLAN whose tag packets need there, 0: none.
    pub vlan: u16,
    /// MAC address to send from.
    pub src_mac: [u8; 6],
    /// The next hop's MAC address: the server's own, or its router's. None while unresolved.
    pub dst_mac: Option<[u8; 6]>,
    /// The server is on a connected subnet (what DR needs).
    pub on_link: bool,
    /// The address that the kernel would use as source (SNAT's default).
    pub source: Option<IpAddr>,
}

/// What is known of the way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// None where there is no way at all.
    pub path: Option<Path>,
    /// Why packets cannot be sent, in words. None exactly if `path` has a `dst_mac`.
    pub problem: Option<String>,
}

impl Resolution {
    fn problem(path: Option<Path>, problem: String) -> Self {
        Self { path, problem: Some(problem) }
    }
}

/// News from the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// The ways to these watched addresses changed, or were looked up for the first time.
    PathsChanged(Vec<(IpAddr, Resolution)>),
    /// A link appeared, or its name, MAC address, MTU, state or master changed.
    LinkChanged(LinkInfo),
    /// A link went away.
    LinkGone(LinkInfo),
    /// The VIPs that cannot be put in place; empty: all are.
    VipProblems(Vec<VipProblem>),
    /// Announcements were lost and everything was asked again. Nothing has to be done.
    Resynchronised,
}

/// Links and addresses at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    links: Vec<LinkInfo>,
    addresses: Vec<AddressInfo>,
}

impl Snapshot {
    fn of(view: &View) -> Self {
        Self { links: view.links.values().cloned().collect(), addresses: view.addresses.clone() }
    }
}

/// Starts the room.
pub struct Net;

impl Net {
    /// Subscribes to the kernel's announcements, learns the present state and starts the task that
    /// keeps up with it. `attached` are the interfaces of the XDP program, the places for VIPs;
    /// `state_dir` keeps the record of VIPs that medlb added. The task ends when every handle, or
    /// the receiver, is dropped; VIPs stay.
    ///
    /// # Errors
    /// The kernel refuses a netlink socket or an answer.
    pub async fn start(
        attached: Vec<String>,
        state_dir: PathBuf,
    ) -> anyhow::Result<(NetHandle, mpsc::UnboundedReceiver<NetEvent>)> {
        Self::start_with(attached, state_dir, monitor::RECEIVE_BUFFER).await
    }

    async fn start_with(
        attached: Vec<String>,
        state_dir: PathBuf,
        receive_buffer: usize,
    ) -> anyhow::Result<(NetHandle, mpsc::UnboundedReceiver<NetEvent>)> {
        let monitor = Monitor::open(receive_buffer)?;
        let (commands, orders) = mpsc::unbounded_channel();
        let (events, news) = mpsc::unbounded_channel();
        let worker = Worker::new(monitor, attached, &state_dir, orders, events).await?;
        let handle = NetHandle { commands, snapshot: worker.snapshot() };
        tokio::spawn(worker.run());
        Ok((handle, news))
    }
}

/// Orders to the room, and questions. Clones are equal.
#[derive(Clone, Debug)]
pub struct NetHandle {
    commands: mpsc::UnboundedSender<Command>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
}

impl NetHandle {
    /// Watches the ways to these addresses and to no others. Every address that was not watched
    /// before is reported once, resolved or not.
    pub fn watch(&self, destinations: Vec<IpAddr>) {
        // A task that has ended has said why.
        let _ = self.commands.send(Command::Watch(destinations));
    }

    /// Puts these VIPs on interfaces, announces them, and takes away others that medlb added. The
    /// receiver gets what could not be done (which is tried again); it may be dropped, since
    /// problems are events, too.
    pub fn set_vips(&self, vips: Vec<Vip>) -> oneshot::Receiver<Vec<VipProblem>> {
        let (reply, problems) = oneshot::channel();
        let _ = self.commands.send(Command::SetVips(vips, reply));
        problems
    }

    /// Every interface, by ifindex.
    pub fn links(&self) -> Vec<LinkInfo> {
        self.snapshot.borrow().links.clone()
    }

    /// The interface of that number.
    pub fn link(&self, ifindex: u32) -> Option<LinkInfo> {
        self.snapshot.borrow().links.iter().find(|link| link.ifindex == ifindex).cloned()
    }

    /// Every address of this host, VIPs included.
    #[cfg(test)]
    pub fn addresses(&self) -> Vec<AddressInfo> {
        self.snapshot.borrow().addresses.clone()
    }
}
