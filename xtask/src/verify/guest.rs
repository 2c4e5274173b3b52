//! Runs virtual machines, and reads what they print.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::kernels::Kernel;
use super::{directory, image};

/// A machine that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// What one kernel said.
#[derive(Clone, Debug)]
pub struct Outcome {
    name: String,
    release: String,
    /// What the loader and the tables said, one line each.
    said: Vec<String>,
    /// Names of programs that failed, or did not come to an end.
    failed: Vec<String>,
    seconds: f64,
}

impl Outcome {
    /// Whether everything passed.
    pub fn passed(&self) -> bool {
        self.failed.is_empty()
    }

    /// The kernel.
    pub fn kernel(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        write!(f, "Linux {}: {verdict} in {:.0} s", self.release, self.seconds)?;
        for line in &self.said {
            write!(f, "\n  {line}")?;
        }
        if !self.passed() {
            write!(f, "\n  failed: {}", self.failed.join(", "))?;
        }
        Ok(())
    }
}

/// Runs the programs on every kernel, `abreast` machines at a time.
///
/// # Errors
/// A machine could not be made or started.
pub fn run_all(kernels: &[Kernel], programs: &[PathBuf], abreast: usize) -> Result<Vec<Outcome>> {
    let waiting = Mutex::new(kernels.iter());
    let work = || -> Result<Vec<Outcome>> {
        let mut done = Vec::new();
        loop {
            let next = waiting.lock().map_err(|_| anyhow::anyhow!("another thread failed"))?.next();
            let Some(kernel) = next else { return Ok(done) };
            done.push(run(kernel, programs)?);
        }
    };
    let mut all = thread::scope(|scope| {
        let threads: Vec<_> = (0..abreast).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    all.sort_by_key(|outcome| kernels.iter().position(|kernel| kernel.name == outcome.name));
    Ok(all)
}

fn run(kernel: &Kernel, programs: &[PathBuf]) -> Result<Outcome> {
    let initramfs = image::build(kernel, programs, &directory())?;
    let console = directory().join(format!("console-{}.log", kernel.name));
    let started = Instant::now();
    boot(kernel, &initramfs, &console)?;
    let text = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
    let mut outcome = Outcome {
        name: kernel.name.clone(),
        release: kernel.release.clone(),
        said: Vec::new(),
        failed: Vec::new(),
        seconds: started.elapsed().as_secs_f64(),
    };
    for program in programs {
        let name = image::program_name(program);
        let said = between(&text, &format!("@begin {name}"), &format!("@end {name}"));
        let fine = text.lines().any(|line| line.trim() == format!("@end {name} 0"));
        outcome.said.extend(worth_telling(said).map(|line| format!("{name}: {line}")));
        if !fine {
            outcome.failed.push(name);
        }
    }
    Ok(outcome)
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let text = text.split_once(begin).map_or("", |(_, after)| after);
    text.split_once(end).map_or(text, |(before, _)| before)
}

fn worth_telling(text: &str) -> impl Iterator<Item = &str> {
    let words = ["test result", "instructions", "attached", "Error", "FAILED", "panicked"];
    text.lines().map(str::trim).filter(move |line| words.iter().any(|word| line.contains(word)))
}

/// Boots the machine and waits for its end. Without /dev/kvm: it works everywhere, and a fault of
/// nested virtualisation is no fault of ours.
fn boot(kernel: &Kernel, initramfs: &Path, console: &Path) -> Result<()> {
    let log = File::create(console)?;
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "2048"])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel.image()?)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    let started = Instant::now();
    while machine.try_wait()?.is_none() {
        if started.elapsed() > PATIENCE {
            machine.kill()?;
            machine.wait()?;
            bail!("Linux {} did not come to an end: see {}", kernel.release, console.display());
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
