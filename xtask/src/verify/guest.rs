//! Runs virtual machines, and reads what they print.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::image::Contents;
use super::kernels::Kernel;
use super::{directory, image};
use crate::workspace;

/// How much of a console is shown when a machine did not come to its end.
const TAIL_LINES: usize = 15;

/// How machines are run.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Where images are made.
    pub scratch: &'a Path,
    /// How many run at the same time.
    pub abreast: usize,
    /// A machine that takes longer hangs, and is ended.
    pub patience: Duration,
}

/// What one kernel said.
#[derive(Clone, Debug)]
pub struct Outcome {
    name: String,
    release: String,
    /// What the loader and the tables said, one line each.
    said: Vec<String>,
    /// Names of programs that failed, or did not come to an end.
    failed: Vec<String>,
    /// Why the machine did not switch itself off, and the end of its console.
    died: Option<String>,
    seconds: f64,
}

impl Outcome {
    /// Whether everything passed.
    pub fn passed(&self) -> bool {
        self.failed.is_empty() && self.died.is_none()
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
        if !self.failed.is_empty() {
            write!(f, "\n  failed: {}", self.failed.join(", "))?;
        }
        if let Some(died) = &self.died {
            write!(f, "\n  {died}")?;
        }
        Ok(())
    }
}

/// Runs the programs on every kernel.
///
/// # Errors
/// A machine could not be made or started.
pub fn run_all(kernels: &[Kernel], programs: &[PathBuf], terms: Terms) -> Result<Vec<Outcome>> {
    let waiting = Mutex::new(kernels.iter());
    let work = || -> Result<Vec<Outcome>> {
        let mut done = Vec::new();
        loop {
            let next = waiting.lock().map_err(|_| anyhow::anyhow!("another thread failed"))?.next();
            let Some(kernel) = next else { return Ok(done) };
            done.push(run(kernel, programs, terms)?);
        }
    };
    let mut all = thread::scope(|scope| {
        let threads: Vec<_> = (0..terms.abreast).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
        }
        anyhow::Ok(all)
    })?;
    all.sort_by_key(|outcome| kernels.iter().position(|kernel| kernel.name == outcome.name));
    Ok(all)
}

fn run(kernel: &Kernel, programs: &[PathBuf], terms: Terms) -> Result<Outcome> {
    let contents = Contents {
        programs,
        tools: &["/usr/sbin/ip"],
        modules: &["veth"],
        script: &script(programs),
    };
    let initramfs = image::build(kernel, contents, terms.scratch)?;
    let console = directory().join(format!("console-{}.log", kernel.name));
    let started = Instant::now();
    let ended = boot(kernel, &initramfs, &console, &[], terms.patience)?;
    let text = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
    let mut outcome = Outcome {
        name: kernel.name.clone(),
        release: kernel.release.clone(),
        said: Vec::new(),
        failed: Vec::new(),
        died: why_it_died(ended, &text, terms.patience),
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

/// What the machine does: the loader attaches, the tables run.
fn script(programs: &[PathBuf]) -> String {
    let mut text = String::from(
        "/usr/sbin/ip link set lo up\n\
         /usr/sbin/ip link add veth0 type veth peer name veth1\n\
         /usr/sbin/ip link set veth0 up\n\
         /usr/sbin/ip link set veth1 up\n",
    );
    let object = workspace::bpf_objects().join("medlb.bpf.o");
    for (i, program) in programs.iter().enumerate() {
        let name = image::program_name(program);
        let arguments = match i {
            0 => format!("{} --attach veth0", object.display()),
            _ => "--test-threads=1".into(),
        };
        text += &format!("echo @begin {name}\nMEDLB_POOL=1 /programs/{name} {arguments} 2>&1\n");
        text += &format!("echo @end {name} $?\n");
    }
    text
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let text = text.split_once(begin).map_or("", |(_, after)| after);
    text.split_once(end).map_or(text, |(before, _)| before)
}

fn worth_telling(text: &str) -> impl Iterator<Item = &str> {
    let words = ["test result", "instructions", "attached", "Error", "FAILED", "panicked"];
    text.lines().map(str::trim).filter(move |line| words.iter().any(|word| line.contains(word)))
}

/// How a machine came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It switched itself off, or ended of a panic.
    ByItself,
    /// By us.
    TimeLimit,
}

/// None if the machine ran all it had to and switched itself off.
pub fn why_it_died(ended: Ended, console: &str, patience: Duration) -> Option<String> {
    let why = match ended {
        Ended::TimeLimit => format!("ended after {} s, because it hung", patience.as_secs()),
        Ended::ByItself if console.lines().any(|line| line.trim() == image::DONE) => return None,
        Ended::ByItself => "it ended before all was run".into(),
    };
    let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n    ");
    Some(format!("{why}; its console's last lines:\n    {tail}"))
}

/// Boots the machine and waits for its end. Without /dev/kvm: it works everywhere, and a fault of
/// nested virtualisation is no fault of ours. setpriv has the kernel end the machine when this
/// process ends, however that comes about.
/// `more` are further arguments of QEMU's.
pub fn boot(
    kernel: &Kernel,
    initramfs: &Path,
    console: &Path,
    more: &[&str],
    patience: Duration,
) -> Result<Ended> {
    let log = File::create(console)?;
    let mut machine = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "1", "-m", "2048"])
        .args(more)
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel.image()?)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 panic=-1 quiet tsc=reliable"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start setpriv")?;
    let started = Instant::now();
    while machine.try_wait()?.is_none() {
        if started.elapsed() > patience {
            machine.kill()?;
            machine.wait()?;
            return Ok(Ended::TimeLimit);
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(Ended::ByItself)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(7);

    #[test]
    fn a_machine_that_hangs_or_panics_is_reported_with_its_last_words() {
        let hung = why_it_died(Ended::TimeLimit, "@begin fixtures\ntest a ... ok\n", LIMIT);
        let hung = hung.expect("a hang is no success");
        assert!(hung.contains("7 s") && hung.ends_with("test a ... ok"), "{hung}");
        let panic = why_it_died(Ended::ByItself, "Kernel panic - not syncing", LIMIT);
        assert!(panic.expect("nor is a panic").contains("not syncing"));
    }

    #[test]
    fn a_machine_that_ran_everything_did_not_die() {
        let console = format!("@end verify 0\r\n{}\r\n[ 5.3] reboot: Power down", image::DONE);
        assert_eq!(why_it_died(Ended::ByItself, &console, LIMIT), None);
    }
}
