//! What a packet costs, by PROG_TEST_RUN: every row is measured beside the yardstick, a program
//! that only exchanges the MAC addresses, in rounds that go through all rows. `scenes` says what is
//! measured, `stopwatch` how, `report` shows it, `costs` adds what is not a time per packet.

pub mod connections;
pub mod control;
mod costs;
mod helpers;
mod report;
mod scenes;
mod statistics;
mod stopwatch;
mod table;
pub mod wire;
mod yardstick;

pub use yardstick::{Round, Yardstick};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

pub use report::{Report, Section, machine};
pub use scenes::Scale;

use scenes::Scene;
use statistics::Summary;
use stopwatch::Stopwatch;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How many times all rows are measured.
    pub rounds: usize,
    /// How long one measurement of one row takes, in milliseconds, about.
    pub slice_ms: u64,
    /// How large the tables are.
    pub scale: Scale,
}

impl Effort {
    /// For figures that are to be quoted.
    pub const FULL: Self = Self { rounds: 9, slice_ms: 25, scale: Scale::Full };
    /// For a look at what a change has done.
    pub const QUICK: Self = Self { rounds: 7, slice_ms: 8, scale: Scale::Small };
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which group of rows it belongs to.
    pub group: &'static str,
    /// What the packets are.
    pub name: String,
    /// The budget of architecture.md as a ratio to the yardstick, if it has one.
    pub budget: Option<f64>,
    /// Nanoseconds a packet.
    pub ns: Summary,
    /// The same, divided by the yardstick's in the same round.
    pub ratio: Summary,
    /// What the shim took of each round's measurement, in nanoseconds; it is subtracted. 0: no shim.
    pub shim_ns: f64,
}

/// Measures everything.
///
/// # Errors
/// Not root, no objects, or a program that does something else than its row says.
pub fn run(effort: Effort, only: Option<&str>) -> Result<Report> {
    let cpu = pin()?;
    let costs = costs::measure()?;
    let mut watch = Stopwatch::new(effort.slice_ms)?;
    let mut rows = Vec::new();
    let mut yardstick = Vec::new();
    for mut scene in Scene::all(effort.scale) {
        eprintln!("bench: {}", scene.name);
        let stage = scene.stage().with_context(|| format!("setting up {}", scene.name))?;
        rows.extend(stage.measure(&mut watch, effort.rounds, only, &mut yardstick)?);
    }
    Ok(Report { cpu, effort, yardstick: Summary::of(&yardstick), rows, costs })
}

/// Stays on one CPU, the last of those allowed: interrupts mostly go to the first.
///
/// # Errors
/// The kernel refuses.
pub fn pin() -> Result<usize> {
    let me = Pid::from_raw(0);
    let allowed = sched_getaffinity(me)?;
    let last = (0..CpuSet::count()).rev().find(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    let cpu = last.context("no CPU to run on")?;
    let mut one = CpuSet::new();
    one.set(cpu)?;
    sched_setaffinity(me, &one)?;
    Ok(cpu)
}
