//! The data path's own log: one line for each packet that it dropped or answered, with the reason,
//! never its contents. Off unless [`TARGET`] is logged at trace level when the program is loaded:
//! the level is a constant for the verifier, which removes the statement otherwise.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use aya::Ebpf;
use aya_log::EbpfLogger;
use lb_common::abi::Verdict;
use nix::net::if_::if_indextoname;
use tracing::{Level, enabled, trace};

/// What `--log-level info,medlb::datapath=trace` turns on.
const TARGET: &str = "medlb::datapath";
/// How often the ring buffer is read. What does not fit meanwhile is lost: counters lose nothing.
const INTERVAL: Duration = Duration::from_millis(100);

/// The level to load the program with: that of `aya_log_common::Level`, 0 for nothing.
pub fn level() -> u8 {
    if enabled!(target: TARGET, Level::TRACE) { log::Level::Trace as u8 } else { 0 }
}

/// Passes on what the program logs, as long as the daemon lives.
///
/// # Errors
/// The object has no log map, or no thread can be had.
pub fn follow(programs: &mut Ebpf) -> anyhow::Result<()> {
    let mut logger = EbpfLogger::init_with_logger(programs, ToTracing)
        .context("cannot read the data path's log")?;
    let follow = move || {
        loop {
            logger.flush();
            thread::sleep(INTERVAL);
        }
    };
    let started = thread::Builder::new().name("datapath-log".into()).spawn(follow);
    started.context("cannot start a thread for the data path's log").map(drop)
}

/// aya-log speaks to the `log` crate, medlb to `tracing`.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        let Some((verdict, ifindex)) = read(&line) else {
            trace!(target: TARGET, "{line}");
            return;
        };
        let interface = if_indextoname(ifindex)
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_else(|| ifindex.to_string());
        trace!(target: TARGET, verdict = verdict.name(), interface, "packet not forwarded");
    }

    fn flush(&self) {}
}

/// The number of the verdict and the interface's index, as `lb-ebpf/src/main.rs` writes them.
fn read(line: &str) -> Option<(Verdict, u32)> {
    let (verdict, ifindex) = line.split_once(' ')?;
    let verdict = Verdict::ALL.get(verdict.parse::<usize>().ok()?)?;
    Some((*verdict, ifindex.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_program_is_a_verdict_and_an_interface() {
        assert_eq!(read("3 7"), Some((Verdict::NoUsableServer, 7)));
        for other in ["", "3", "three 7", "99 7", "3 7 1"] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}
