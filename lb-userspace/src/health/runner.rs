//! Keeps the checks: which there are, what is known of each, who hears of it. One task for each
//! distinct check, in `task`, probes. Identical checks of several services run once and feed all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, info};

use super::machine::{Machine, Rules};
pub use super::target::Target;
use super::task::Task;
use super::{Health, Outcome, View};
use crate::config::model::CheckKind;

/// Every check but the first comes up to this much early or late, so that checks drift apart.
const JITTER: f64 = 0.05;

/// Sockets that the runner wants to be able to hold open, if the hard limit allows it.
const OPEN_FILES: u64 = 65536;

/// Gives the mark that sends a DR target's packets through its VIP.
pub type MarkFor = Arc<dyn Fn(&Target) -> Option<u32> + Send + Sync>;

/// What the runner cannot know itself.
#[derive(Clone, Default)]
pub struct Options {
    /// Asked for each DR target without `via: rip`; none: such checks go to the RIP.
    pub mark_for: Option<MarkFor>,
}

/// A server's label pair: service, real server.
type Server = (String, String);

/// Health, and whether busy.
type Judged = (Health, bool);

/// A change of a server's judged state, or of `busy_drain`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Label of the virtual service.
    pub service: String,
    /// Label of the real server.
    pub real: String,
    /// Before.
    pub old: Health,
    /// After.
    pub new: Health,
    /// Everything that is known now.
    pub view: View,
}

/// Starts checks and hands out the [`Handle`].
pub struct Runner;

impl Runner {
    /// A runner without targets. Must be called within a tokio runtime. The checks end when all
    /// handles are gone or the targets are taken away.
    pub fn start(options: Options) -> (Handle, mpsc::UnboundedReceiver<Event>) {
        raise_open_files();
        let (events, receiver) = mpsc::unbounded_channel();
        let state = Arc::new(Mutex::new(State {
            checks: HashMap::new(),
            by_server: HashMap::new(),
            events,
            born: 0,
        }));
        (Handle { state, options }, receiver)
    }
}

/// Access to a running [`Runner`].
#[derive(Clone)]
pub struct Handle {
    state: Arc<Mutex<State>>,
    options: Options,
}

/// The checks and their machines.
pub(super) struct State {
    checks: HashMap<String, Check>,
    by_server: HashMap<Server, String>,
    events: mpsc::UnboundedSender<Event>,
    /// Numbers checks, so that the answer of one that was taken away meets nobody.
    born: u64,
}

struct Check {
    id: u64,
    machine: Machine,
    next_check: Option<SystemTime>,
    /// `none` has nothing to ask twice.
    once: bool,
    servers: Vec<Server>,
    rip_port: (std::net::IpAddr, u16),
    /// Dropping it ends the task once its present probe, if any, has taken leave of the server.
    orders: mpsc::UnboundedSender<oneshot::Sender<Outcome>>,
}

impl Check {
    fn judged(&self) -> Judged {
        (self.machine.health(), self.machine.busy_drain())
    }

    fn view(&self) -> View {
        self.machine.view(self.next_check)
    }
}

impl Handle {
    /// Makes these the targets. A check that was there before goes on undisturbed; one whose
    /// parameters changed starts from the verdict that was last reached; new ones have their first
    /// probes spread over one interval.
    pub fn set_targets(&self, targets: Vec<Target>) {
        let mut groups: Vec<(String, Vec<Target>)> = Vec::new();
        let mut index = HashMap::new();
        for target in targets {
            let key = target.key();
            let at = *index.entry(key.clone()).or_insert_with(|| {
                groups.push((key, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(target);
        }
        let mut state = lock(&self.state);
        let before = state.healths();
        let mut old = std::mem::take(&mut state.checks);
        let old_servers = std::mem::take(&mut state.by_server);
        let fresh = groups.iter().filter(|(key, _)| !old.contains_key(key)).count();
        let mut started = 0u32;
        // First those that stay, so that what is left in `old` are predecessors.
        let (stay, new): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|(key, _)| old.contains_key(key));
        for (key, group) in stay {
            if let Some(mut check) = old.remove(&key) {
                check.servers = servers(&group);
                state.adopt(key, check);
            }
        }
        for (key, group) in new {
            let previous = group.iter().find_map(|t| {
                let server = (t.service.clone(), t.real.clone());
                let key = old_servers.get(&server)?;
                let check = old.get(key).or_else(|| state.checks.get(key))?;
                (check.rip_port == (t.rip, t.port)).then_some(&check.machine)
            });
            let rules = Rules::from(&*group[0].check);
            let machine = match previous {
                Some(previous) => Machine::succeed(previous, rules),
                None => Machine::new(rules, SystemTime::now()),
            };
            let delay = rules.interval * started / u32::try_from(fresh).unwrap_or(u32::MAX).max(1);
            started = started.saturating_add(1);
            let check = self.spawn(&mut state, &key, &group, machine, delay);
            state.adopt(key, check);
        }
        state.announce_moves(&before);
    }

    fn spawn(
        &self,
        state: &mut State,
        key: &str,
        group: &[Target],
        machine: Machine,
        delay: Duration,
    ) -> Check {
        let target = &group[0];
        state.born += 1;
        let id = state.born;
        let (orders, inbox) = mpsc::unbounded_channel();
        let once = matches!(target.check.kind, CheckKind::None);
        let delay = if once { Duration::ZERO } else { delay };
        let first = Instant::now() + delay;
        let task = Task {
            state: Arc::downgrade(&self.state),
            key: key.to_owned(),
            id,
            target: target.clone(),
            mark_for: self.options.mark_for.clone().filter(|_| target.through_vip()),
            look: Arc::default(),
        };
        tokio::spawn(task.run(inbox, first));
        let next_check = Some(SystemTime::now() + delay);
        let rip_port = (target.rip, target.port);
        Check { id, machine, next_check, once, servers: servers(group), rip_port, orders }
    }

    /// What is known of every target, by service and real-server label.
    #[cfg(test)]
    pub fn views(&self) -> HashMap<(String, String), View> {
        self.each(Check::view)
    }

    /// What is known of every target, by service and real-server label, with the last outcome of each
    /// history alone: what `status` and the desired state need.
    pub fn brief_views(&self) -> HashMap<(String, String), View> {
        self.each(|check| check.machine.brief(check.next_check))
    }

    fn each(&self, view: impl Fn(&Check) -> View) -> HashMap<Server, View> {
        let state = lock(&self.state);
        let checks = state.checks.values();
        checks.flat_map(|c| c.servers.iter().map(|s| (s.clone(), view(c)))).collect()
    }

    /// What is known of one target; none: there is no such target.
    pub fn view(&self, service: &str, real: &str) -> Option<View> {
        let state = lock(&self.state);
        let key = state.by_server.get(&(service.to_owned(), real.to_owned()))?;
        state.checks.get(key).map(Check::view)
    }

    /// Probes a server now, or right after the probe that is under way; the outcome counts like
    /// any other. None: there is no such target, or it was taken away meanwhile.
    pub async fn check_now(&self, service: &str, real: &str) -> Option<Outcome> {
        let answer = {
            let state = lock(&self.state);
            let key = state.by_server.get(&(service.to_owned(), real.to_owned()))?;
            let (reply, answer) = oneshot::channel();
            state.checks.get(key)?.orders.send(reply).ok()?;
            answer
        };
        answer.await.ok()
    }
}

impl State {
    fn adopt(&mut self, key: String, check: Check) {
        for server in &check.servers {
            self.by_server.insert(server.clone(), key.clone());
        }
        self.checks.insert(key, check);
    }

    fn healths(&self) -> HashMap<Server, Judged> {
        let all = self.checks.values().flat_map(|check| {
            let judged = check.judged();
            check.servers.iter().map(move |server| (server.clone(), judged))
        });
        all.collect()
    }

    /// A server that came to share a check that is already judged gets that verdict as an event.
    fn announce_moves(&self, before: &HashMap<Server, Judged>) {
        for check in self.checks.values() {
            for server in &check.servers {
                let old = before.get(server).copied().unwrap_or((Health::Unknown, false));
                if old != check.judged() {
                    self.announce(server, old.0, &check.view());
                }
            }
        }
    }

    fn announce(&self, server: &Server, old: Health, view: &View) {
        let ((service, real), new) = (server.clone(), view.health);
        // Nobody listening is not the runner's trouble: views still tell.
        self.events.send(Event { service, real, old, new, view: view.clone() }).ok();
    }

    /// Lets the machine judge an outcome. Gives the time until the next probe; none: the check was
    /// taken away while its probe was under way.
    pub(super) fn record(
        &mut self,
        key: &str,
        id: u64,
        outcome: &Outcome,
        started: Instant,
    ) -> Option<Instant> {
        let check = self.checks.get_mut(key).filter(|check| check.id == id)?;
        let change = check.machine.on_outcome(outcome.clone());
        let pause = jittered(check.machine.interval());
        let next = (started + pause).max(Instant::now());
        let until = next.saturating_duration_since(Instant::now());
        check.next_check = (!check.once).then(|| SystemTime::now() + until);
        if let Some(change) = change {
            let check = self.checks.get(key)?;
            let view = check.view();
            for server in &check.servers {
                log_change(server, change.old, &view, outcome);
                self.announce(server, change.old, &view);
            }
        }
        Some(next)
    }
}

fn log_change((service, real): &Server, old: Health, view: &View, outcome: &Outcome) {
    info!(%service, server = %real, from = %old, to = %view.health, busy = view.busy_drain,
        phase = outcome.phase, reason = %outcome.detail, "real server changed state");
}

fn servers(group: &[Target]) -> Vec<Server> {
    group.iter().map(|t| (t.service.clone(), t.real.clone())).collect()
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64())
}

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // The state is consistent between any two statements that could panic.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thousand checks that hang are a thousand sockets, and the usual soft limit is 1024.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard.min(OPEN_FILES)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard.min(OPEN_FILES), hard)
    {
        debug!(%error, "cannot raise the limit of open files");
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
