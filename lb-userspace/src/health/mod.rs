//! Health checks: `machine` judges, `runner` times, `probe` speaks.

pub mod machine;
pub mod probe;
pub mod runner;
mod target;
mod task;

use std::fmt;
use std::time::{Duration, SystemTime};

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Pass, busy or fail.
    pub result: ProbeResult,
    /// How far the exchange got: `connect`, `tls`, `associate`, `echo`, `release`, …
    pub phase: &'static str,
    /// In the protocol's words: `A-ASSOCIATE-RJ: called AE "DW_SCP" not recognized`.
    pub detail: String,
    /// How long it took.
    pub duration: Duration,
    /// When it ended.
    pub at: SystemTime,
}

/// The verdict of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The server does its job.
    Pass,
    /// It answers, but says that it cannot take more now; what follows is `on_busy`'s to say.
    Busy,
    /// It does not.
    Fail,
}

/// Judged health of a real server, as `status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not judged yet.
    Unknown,
    /// Passing.
    Up,
    /// Up, with n failures in a row.
    Falling {
        /// Failures so far.
        n: u32,
    },
    /// Failed.
    Down,
    /// Down, with n passes in a row.
    Rising {
        /// Passes so far.
        n: u32,
    },
}

impl fmt::Display for Health {
    /// The words of `status`, with the count: `falling 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Health::Unknown => f.write_str("unknown"),
            Health::Up => f.write_str("up"),
            Health::Falling { n } => write!(f, "falling {n}"),
            Health::Down => f.write_str("down"),
            Health::Rising { n } => write!(f, "rising {n}"),
        }
    }
}

/// Everything that is known of one real server's health.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Judged state.
    pub health: Health,
    /// Healthy but busy, with `on_busy: drain`: takes no new connections.
    pub busy_drain: bool,
    /// When `health` last changed between up and down.
    pub changed_at: SystemTime,
    /// The last outcomes, newest last, at most 20.
    pub history: Vec<Outcome>,
    /// When the next probe starts.
    pub next_check: Option<SystemTime>,
}
