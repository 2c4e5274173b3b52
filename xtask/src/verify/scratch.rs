//! A directory for one run, taken away at its end, also when that end is a signal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};

const PREFIX: &str = "run-";
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// A directory that goes away with its owner.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a directory in `parent`, and takes away those of processes that were killed. To be
    /// called before any other thread is started: those inherit that signals are waited for.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(parent: &Path) -> Result<Self> {
        fs::create_dir_all(parent)?;
        remove_stale(parent)?;
        let path = parent.join(format!("{PREFIX}{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let signals: SigSet = SIGNALS.into_iter().collect();
        signals.thread_block()?;
        let doomed = path.clone();
        thread::spawn(move || {
            let Ok(signal) = signals.wait() else { return };
            // Virtual machines die with this process (see `guest`).
            let _ = fs::remove_dir_all(&doomed);
            process::exit(128 + signal as i32);
        });
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn remove_stale(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = name.strip_prefix(PREFIX) else { continue };
        if !Path::new("/proc").join(owner).exists() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_taken_away_and_a_living_ones_stays() {
        let parent = std::env::temp_dir().join(format!("medlb-scratch-{}", process::id()));
        // No process has the number 0.
        let (dead, alive) = (parent.join("run-0"), parent.join("run-1"));
        for directory in [&dead, &alive] {
            fs::create_dir_all(directory).unwrap();
        }
        remove_stale(&parent).unwrap();
        assert!(!dead.exists() && alive.exists());
        fs::remove_dir_all(&parent).unwrap();
    }
}
