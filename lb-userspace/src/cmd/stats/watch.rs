//! `stats --watch`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::{StatsArgs, tables};
use crate::api::client::{Client, decode};
use crate::api::model::Stats;
use crate::api::protocol::Command;
use crate::cmd::{Context, Done, Failure, runtime, ui};

/// The alternate screen, no cursor, no line wrap; and all of that undone.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// The terminal while it is ours. Dropping it gives it back as it was.
struct Screen {
    terminal: bool,
}

impl Screen {
    fn enter() -> io::Result<Self> {
        let terminal = io::stdout().is_terminal();
        if terminal {
            ui::print(ENTER)?;
        }
        Ok(Self { terminal })
    }

    fn show(&self, text: &str) -> io::Result<()> {
        if !self.terminal {
            return ui::print(text);
        }
        let height = terminal_size::terminal_size().map_or(24, |(_, height)| usize::from(height.0));
        ui::print(&frame(text, height))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            ui::print(LEAVE).ok();
        }
    }
}

/// The text drawn over the previous one: every line cleared behind its end, and what is below
/// cleared; as many lines as fit.
fn frame(text: &str, height: usize) -> String {
    let mut out = String::from("\x1b[H");
    let lines: Vec<&str> = text.lines().collect();
    let shown = lines.len().min(height);
    for (i, line) in lines[..shown].iter().enumerate() {
        let cut = i + 1 == shown && shown < lines.len();
        out.push_str(if cut { "… (the window is too small for the rest)" } else { line });
        out.push_str("\x1b[K");
        if i + 1 < shown {
            out.push_str("\r\n");
        }
    }
    out.push_str("\x1b[J");
    out
}

/// Refreshes until Ctrl-C.
pub fn run(args: &StatsArgs, context: &Context) -> Done {
    // A first answer before the screen is taken: "no daemon" is an ordinary error then.
    let first = Look::take(&context.socket())?;
    let runtime = runtime()?;
    let done = runtime.block_on(watch(args, context, first));
    // A daemon that is slow to answer must not hold up the end.
    runtime.shutdown_background();
    done
}

/// The counters at one moment.
struct Look {
    raw: String,
    stats: Stats,
    at: Instant,
}

impl Look {
    fn take(socket: &Path) -> Result<Self, Failure> {
        let raw = Client::connect(socket)?.ask(Command::Stats)?;
        let stats = decode(&raw)?;
        Ok(Self { raw: raw.get().to_owned(), stats, at: Instant::now() })
    }
}

async fn watch(args: &StatsArgs, context: &Context, mut last: Look) -> Done {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let screen = if args.json { Screen { terminal: false } } else { Screen::enter()? };
    let mut ticks = tokio::time::interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first is due at once
    if args.json {
        screen.show(&format!("{}\n", last.raw))?;
    } else {
        screen.show(&tables::totals(&last.stats, context.paint))?;
    }
    loop {
        let socket = context.socket();
        let look = async {
            ticks.tick().await;
            tokio::task::spawn_blocking(move || Look::take(&socket)).await
        };
        let look = tokio::select! {
            look = look => look.context("the look at the counters was cut short")?,
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            _ = hangup.recv() => return Ok(ExitCode::SUCCESS),
        };
        match look {
            Ok(now) if args.json => screen.show(&format!("{}\n", now.raw))?,
            Ok(now) => {
                let span = now.at - last.at;
                let clock = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
                let every = ui::age(args.interval);
                let table = tables::rates(&last.stats, &now.stats, span, context.paint);
                screen.show(&format!("medlb, {clock}, every {every}; Ctrl-C ends\n\n{table}"))?;
                last = now;
            }
            // A daemon that is restarted keeps its counters: wait for it.
            Err(Failure::NoDaemon(message)) if screen.terminal => {
                screen.show(&format!("{message}\n\nstill trying; Ctrl-C ends\n"))?;
            }
            Err(failure) => return Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_overwrites_the_previous_one_and_fits_the_window() {
        let text = frame("one\ntwo\nthree\nfour\n", 3);
        assert!(text.starts_with("\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\n"), "{text:?}");
        assert!(text.contains("too small"), "{text:?}");
        assert!(!text.contains("four"));
        // A newline after the last line would scroll the screen.
        assert!(!text.ends_with("\r\n\x1b[J"));
    }

    #[test]
    fn leaving_undoes_what_entering_did() {
        for (set, unset) in [("?1049h", "?1049l"), ("?25l", "?25h"), ("?7l", "?7h")] {
            assert!(ENTER.contains(set) && LEAVE.contains(unset));
        }
    }
}
