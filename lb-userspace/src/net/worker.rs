//! The one task that hears the kernel, decides and acts. Everything else talks to it over channels.

use std::net::IpAddr;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{self, Instant, MissedTickBehavior};

use super::announce::Announcer;
use super::kernel::Kernel;
use super::monitor::{Heard, Monitor};
use super::paths::Paths;
use super::view::{Change, LinkInfo, View};
use super::vip::{Vip, VipProblem, Vips};
use super::{NetEvent, Snapshot};

/// Announcements that belong together are taken as one.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// How often neighbours are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long to wait after a resynchronisation that failed.
const RETRY: Duration = Duration::from_secs(1);

/// What a [`super::NetHandle`] asks for.
#[derive(Debug)]
pub enum Command {
    /// Replace the watched destinations.
    Watch(Vec<IpAddr>),
    /// Replace the VIPs; the problems go to the sender.
    SetVips(Vec<Vip>, oneshot::Sender<Vec<VipProblem>>),
}

/// What the next settling has to do.
#[derive(Debug, Default)]
struct Pending {
    at: Option<Instant>,
    routes: bool,
    vips: bool,
    resynchronise: bool,
    links: Vec<NetEvent>,
}

/// The task.
pub struct Worker {
    kernel: Kernel,
    monitor: Monitor,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::UnboundedSender<NetEvent>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    attached: Vec<String>,
    view: View,
    paths: Paths,
    vips: Vips,
    announcer: Announcer,
    pending: Pending,
    told: Vec<VipProblem>,
}

impl Worker {
    /// Subscribes first and asks second, so that no change falls between.
    ///
    /// # Errors
    /// The kernel refuses a socket or an answer.
    pub async fn new(
        monitor: Monitor,
        attached: Vec<String>,
        state_dir: &FilePath,
        commands: mpsc::UnboundedReceiver<Command>,
        events: mpsc::UnboundedSender<NetEvent>,
    ) -> anyhow::Result<Self> {
        let kernel = Kernel::connect()?;
        let view = kernel.dump().await?;
        let snapshot = watch::Sender::new(Arc::new(Snapshot::of(&view)));
        Ok(Self {
            kernel,
            monitor,
            commands,
            events,
            snapshot,
            attached,
            view,
            paths: Paths::default(),
            vips: Vips::new(state_dir),
            announcer: Announcer::default(),
            pending: Pending::default(),
            told: Vec::new(),
        })
    }

    /// Links and addresses, as they change.
    pub fn snapshot(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// Runs until every handle is gone, or nobody listens to events.
    pub async fn run(mut self) {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let settle = self.pending.at;
            let announce = self.announcer.next();
            tokio::select! {
                heard = self.monitor.next() => match heard {
                    Ok(Heard::Messages(messages)) => {
                        for message in messages {
                            let change = self.view.apply(&message);
                            self.note(change);
                        }
                    }
                    Ok(Heard::Lost) => self.lost(),
                    Err(error) => {
                        tracing::error!(%error, "the network can no longer be watched");
                        return;
                    }
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                () = until(settle) => self.settle().await,
                () = until(announce) => self.announcer.send_due(&self.view, Instant::now()),
                _ = tick.tick() => {
                    self.provoke().await;
                    if self.vips.unfinished() {
                        self.pending.vips = true;
                        self.soon();
                    }
                }
            }
            if self.events.is_closed() {
                return;
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Watch(destinations) => {
                self.paths.watch(&self.kernel, &self.view, destinations).await;
                self.tell_paths();
                self.provoke().await;
            }
            Command::SetVips(vips, reply) => {
                self.vips.want(vips);
                self.place_vips().await;
                // Nobody may be waiting for the answer.
                let _ = reply.send(self.vips.problems());
            }
        }
    }

    fn soon(&mut self) {
        self.pending.at.get_or_insert_with(|| Instant::now() + DEBOUNCE);
    }

    fn lost(&mut self) {
        tracing::warn!("network announcements were lost; asking for everything again");
        self.pending.resynchronise = true;
        self.soon();
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::Nothing => return,
            Change::Neighbour { key, before, now } => self.paths.neighbour(key, before, now),
            Change::Routes => self.pending.routes = true,
            Change::Addresses => {
                self.pending.routes = true;
                self.pending.vips = true;
            }
            Change::Link { before, now } => self.note_link(before.as_ref(), now),
            Change::LinkGone(link) => {
                self.paths.forget(link.ifindex);
                self.pending.links.push(NetEvent::LinkGone(link));
                self.pending.routes = true;
                self.pending.vips = true;
            }
        }
        self.soon();
    }

    fn note_link(&mut self, before: Option<&LinkInfo>, now: LinkInfo) {
        let was_usable = before.is_some_and(LinkInfo::usable);
        if was_usable && !now.usable() {
            self.paths.forget(now.ifindex);
        }
        let new_address = before.is_some_and(|before| before.mac != now.mac);
        if now.usable() && (!was_usable || new_address) {
            self.announce_link(now.ifindex);
        }
        self.pending.links.push(NetEvent::LinkChanged(now));
        self.pending.routes = true;
        self.pending.vips = true;
    }

    fn announce_link(&mut self, ifindex: u32) {
        let now = Instant::now();
        for (vip, on) in self.vips.placed() {
            if *on == ifindex {
                self.announcer.announce(*vip, ifindex, now);
            }
        }
    }

    /// Acts on everything that was noted.
    async fn settle(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        for event in pending.links {
            self.tell(event);
        }
        if pending.resynchronise && !self.resynchronise().await {
            self.pending.resynchronise = true;
            self.pending.at = Some(Instant::now() + RETRY);
        }
        if pending.vips || pending.resynchronise {
            self.place_vips().await;
        }
        if pending.routes || pending.resynchronise {
            self.paths.ask_all(&self.kernel, &self.view).await;
        }
        self.publish();
        self.tell_paths();
        self.provoke().await;
    }

    /// Replaces the view by what the kernel has now.
    async fn resynchronise(&mut self) -> bool {
        self.monitor.drain();
        let fresh = match self.kernel.dump().await {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "cannot ask for the network's state");
                return false;
            }
        };
        let old = std::mem::replace(&mut self.view, fresh);
        for link in self.view.links.clone().into_values() {
            let before = old.links.get(&link.ifindex);
            if before != Some(&link) {
                self.note_link(before, link);
            }
        }
        for (ifindex, link) in old.links {
            if !self.view.links.contains_key(&ifindex) {
                self.paths.forget(ifindex);
                self.pending.links.push(NetEvent::LinkGone(link));
            }
        }
        if !self.pending.links.is_empty() {
            self.soon();
        }
        self.paths.resynchronise(&self.view);
        self.tell(NetEvent::Resynchronised);
        true
    }

    async fn place_vips(&mut self) {
        let arrived = self.vips.reconcile(&self.kernel, &mut self.view, &self.attached).await;
        let now = Instant::now();
        for (vip, ifindex) in arrived {
            self.announcer.announce(vip, ifindex, now);
        }
        self.announcer.retain(|vip| self.vips.placed().contains_key(&vip));
        // Not left to the next round: whoever waits for set_vips may count on it.
        self.announcer.send_due(&self.view, now);
        self.publish();
        let problems = self.vips.problems();
        if problems != self.told {
            self.told.clone_from(&problems);
            self.tell(NetEvent::VipProblems(problems));
        }
    }

    async fn provoke(&mut self) {
        let due = self.paths.due(&self.view, Instant::now());
        if !due.is_empty() {
            Paths::provoke(&self.kernel, due).await;
        }
    }

    fn publish(&self) {
        let now = Snapshot::of(&self.view);
        self.snapshot.send_if_modified(|old| {
            let changed = **old != now;
            if changed {
                *old = Arc::new(now);
            }
            changed
        });
    }

    fn tell_paths(&mut self) {
        let changes = self.paths.changes(&self.view, &self.attached);
        if !changes.is_empty() {
            self.tell(NetEvent::PathsChanged(changes));
        }
    }

    fn tell(&self, event: NetEvent) {
        // The loop in `run` notices that nobody listens.
        let _ = self.events.send(event);
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
