//! Long steps: what runs, for how long, and its last lines when it fails.

use std::fs::{self, File};
use std::io::{IsTerminal as _, Write as _, stderr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

const TICK: Duration = Duration::from_millis(100);
/// How often a log file, not a terminal, is told that a step still runs.
const QUIET: Duration = Duration::from_secs(15);
const TAIL_LINES: usize = 30;

/// Runs `command` with its output in `target/log/NAME.log`, showing `what` and the seconds that
/// pass.
///
/// # Errors
/// The command cannot be started, or fails: then with the last lines of its output.
pub fn step(name: &str, what: &str, command: &mut Command) -> Result<()> {
    let directory = workspace::target().join("log");
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{name}.log"));
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let (started, mut told) = (Instant::now(), Instant::now());
    let terminal = stderr().is_terminal();
    if !terminal {
        eprintln!("  {what} …");
    }
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if terminal {
            eprint!("\r  {what} … {} s ", started.elapsed().as_secs());
            stderr().flush()?;
        } else if told.elapsed() >= QUIET {
            told = Instant::now();
            eprintln!("  {what} … still running, {} s", started.elapsed().as_secs());
        }
        std::thread::sleep(TICK);
    };
    let clear = if terminal { "\r\x1b[K" } else { "" };
    let seconds = started.elapsed().as_secs_f64();
    if status.success() {
        eprintln!("{clear}  {what}: done in {seconds:.1} s");
        return Ok(());
    }
    let output = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = output.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n    ");
    eprintln!("{clear}  {what}: failed after {seconds:.1} s\n    {tail}");
    bail!("{program} failed ({status}); all of its output is in {}", path.display());
}
