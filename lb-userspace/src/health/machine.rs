//! The rise/fall machine of one check. It reads no clock and no socket: outcomes, which carry their
//! own times, go in; the judged state and the pause until the next check come out.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::{Health, Outcome, ProbeResult, View};
use crate::config::model::{CheckKind, HealthCheck, OnBusy};

/// How many outcomes are kept.
pub const HISTORY: usize = 20;

/// Checks of a server that is falling or rising come no closer together than this, unless the
/// operator's own interval is shorter.
pub const SHORTEST_HALF_INTERVAL: Duration = Duration::from_secs(1);

/// What the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Passes that bring a server up; 0 counts as 1.
    pub rise: u32,
    /// Failures that take it down; 0 counts as 1.
    pub fall: u32,
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// What "busy" means.
    pub on_busy: OnBusy,
}

impl From<&HealthCheck> for Rules {
    fn from(check: &HealthCheck) -> Self {
        let on_busy = match &check.kind {
            CheckKind::DicomEcho { on_busy, .. } => *on_busy,
            _ => OnBusy::default(),
        };
        Rules {
            rise: check.rise.max(1),
            fall: check.fall.max(1),
            interval: check.interval,
            on_busy,
        }
    }
}

/// A change that an outcome made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Judged state before.
    pub old: Health,
    /// Judged state after.
    pub new: Health,
}

/// The machine of one check.
#[derive(Clone, Debug)]
pub struct Machine {
    rules: Rules,
    health: Health,
    /// Failures in a row while nothing is known yet.
    unknown_failures: u32,
    busy_drain: bool,
    changed_at: SystemTime,
    history: VecDeque<Outcome>,
}

impl Machine {
    /// A machine that knows nothing yet.
    pub fn new(rules: Rules, now: SystemTime) -> Self {
        let history = VecDeque::with_capacity(HISTORY);
        let health = Health::Unknown;
        Machine { rules, health, unknown_failures: 0, busy_drain: false, changed_at: now, history }
    }

    /// A machine with new rules for a server that was judged under others: a reload that alters a
    /// check neither takes a good server out nor puts a bad one in before it was checked again.
    /// Counts that were under way start afresh.
    pub fn succeed(previous: &Machine, rules: Rules) -> Self {
        let health = match previous.health {
            Health::Falling { .. } => Health::Up,
            Health::Rising { .. } => Health::Down,
            settled => settled,
        };
        Machine { rules, health, unknown_failures: 0, ..previous.clone() }
    }

    /// Judges an outcome. Gives the change of state, if there was one; a change of "busy" alone
    /// counts, with `old` equal to `new`.
    pub fn on_outcome(&mut self, outcome: Outcome) -> Option<Change> {
        let (old, old_busy) = (self.health, self.busy_drain);
        let (passed, busy_drain) = match (outcome.result, self.rules.on_busy) {
            (ProbeResult::Pass, _) | (ProbeResult::Busy, OnBusy::Up) => (true, false),
            (ProbeResult::Busy, OnBusy::Drain) => (true, true),
            // A failure says nothing about how busy the server is.
            (ProbeResult::Fail, _) | (ProbeResult::Busy, OnBusy::Down) => (false, self.busy_drain),
        };
        self.health = if passed { self.after_pass() } else { self.after_failure() };
        self.busy_drain = busy_drain && is_in(self.health);
        let first_verdict = old == Health::Unknown && self.health != Health::Unknown;
        if first_verdict || is_in(old) != is_in(self.health) {
            self.changed_at = outcome.at;
        }
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(outcome);
        (old != self.health || old_busy != self.busy_drain)
            .then_some(Change { old, new: self.health })
    }

    fn after_pass(&mut self) -> Health {
        let rise = self.rules.rise;
        match self.health {
            Health::Unknown | Health::Up | Health::Falling { .. } => Health::Up,
            Health::Down if rise <= 1 => Health::Up,
            Health::Down => Health::Rising { n: 1 },
            Health::Rising { n } if n + 1 >= rise => Health::Up,
            Health::Rising { n } => Health::Rising { n: n + 1 },
        }
    }

    fn after_failure(&mut self) -> Health {
        let fall = self.rules.fall;
        match self.health {
            Health::Unknown => {
                self.unknown_failures += 1;
                if self.unknown_failures >= fall { Health::Down } else { Health::Unknown }
            }
            Health::Up if fall <= 1 => Health::Down,
            Health::Up => Health::Falling { n: 1 },
            Health::Falling { n } if n + 1 >= fall => Health::Down,
            Health::Falling { n } => Health::Falling { n: n + 1 },
            Health::Down | Health::Rising { .. } => Health::Down,
        }
    }

    /// From the start of the last check to the start of the next, before jitter.
    pub fn interval(&self) -> Duration {
        let interval = self.rules.interval;
        match self.health {
            Health::Falling { .. } | Health::Rising { .. } => {
                (interval / 2).max(SHORTEST_HALF_INTERVAL).min(interval)
            }
            Health::Unknown | Health::Up | Health::Down => interval,
        }
    }

    /// Judged state.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Whether the server is healthy but busy, with `on_busy: drain`.
    pub fn busy_drain(&self) -> bool {
        self.busy_drain
    }

    /// As [`view`](Self::view), with the last outcome alone: cheap enough to make for every server.
    pub fn brief(&self, next_check: Option<SystemTime>) -> View {
        View {
            health: self.health,
            busy_drain: self.busy_drain,
            changed_at: self.changed_at,
            history: self.history.back().cloned().into_iter().collect(),
            next_check,
        }
    }

    /// Everything that is known, for `status` and `explain`.
    pub fn view(&self, next_check: Option<SystemTime>) -> View {
        View { history: self.history.iter().cloned().collect(), ..self.brief(next_check) }
    }
}

/// Whether a server in this state may be in rotation.
fn is_in(health: Health) -> bool {
    matches!(health, Health::Up | Health::Falling { .. })
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
