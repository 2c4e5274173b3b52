//! How a program is timed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use nix::time::{ClockId, clock_gettime};

use super::yardstick::{Round, Yardstick};
use crate::plane::Plane;

/// How many runs find out how many fill a slice.
const TRIAL: u32 = 20_000;
/// A slice is never fewer runs than this: a call costs some microseconds itself.
const FEWEST: u32 = 20_000;

/// Times programs of a [`Plane`] beside the yardstick's.
pub struct Stopwatch {
    yardstick: Yardstick,
    slice: Duration,
}

/// One row's figures in one round, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Lap {
    /// A packet, without the shim.
    pub packet: f64,
    /// The yardstick, just before.
    pub mac_swap: f64,
    /// What the shim cost.
    pub shim: f64,
    /// How many packets there were.
    pub packets: u64,
}

impl Stopwatch {
    /// With slices of about `slice_ms` milliseconds.
    pub fn new(slice_ms: u64) -> Result<Self> {
        Ok(Self { yardstick: Yardstick::load()?, slice: Duration::from_millis(slice_ms) })
    }

    /// Times medlb on a frame as it is, over and over: for programs that leave alone what they read.
    pub fn direct(&mut self, plane: &Plane, frame: &[u8]) -> Result<Lap> {
        let mac_swap = self.slice(self.yardstick.program("mac_swap")?, frame)?.0;
        let (packet, packets) = self.slice(plane.program()?, frame)?;
        Ok(Lap { packet, mac_swap, shim: 0.0, packets })
    }

    /// Times medlb behind the shim, which makes the round's flows of the frame.
    pub fn shimmed(&mut self, plane: &Plane, frame: &[u8], round: Round) -> Result<Lap> {
        self.yardstick.settings(frame, round)?;
        let mac_swap = self.slice(self.yardstick.program("mac_swap")?, frame)?.0;
        let nothing = self.slice(self.yardstick.program("nothing")?, frame)?.0;
        let fd = self.yardstick.program("nothing")?.fd()?.try_clone()?;
        self.yardstick.next(&fd)?;
        let shim = self.slice(self.yardstick.program("shim")?, frame)?.0 - nothing;
        let fd = plane.program()?.fd()?.try_clone()?;
        self.yardstick.next(&fd)?;
        let (both, packets) = self.slice(self.yardstick.program("shim")?, frame)?;
        Ok(Lap { packet: both - shim, mac_swap, shim, packets })
    }

    /// Nanoseconds a run over about a slice, and how many runs there were.
    fn slice(&self, program: &Xdp, frame: &[u8]) -> Result<(f64, u64)> {
        let trial = time(program, frame, TRIAL)?;
        let runs = (self.slice.as_nanos() as f64 / trial) as u32;
        let runs = runs.max(FEWEST);
        Ok((time(program, frame, runs)?, u64::from(runs) + u64::from(TRIAL)))
    }
}

/// Nanoseconds a run. By this thread's own CPU time: PROG_TEST_RUN's answer is in whole nanoseconds,
/// and counts what others did on the CPU in between.
fn time(program: &Xdp, frame: &[u8], repeat: u32) -> Result<f64> {
    let before = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
    let result = program.test_run(options).context("PROG_TEST_RUN")?;
    let after = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
    ensure!(result.return_value != 0, "the program gave up (XDP_ABORTED)");
    Ok((after - before).as_nanos() as f64 / f64::from(repeat))
}
