//! The kernel's threads that do what interrupts have put off.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The `ksoftirqd` of every CPU.
#[derive(Clone, Debug)]
pub struct Helpers {
    files: Vec<PathBuf>,
}

impl Helpers {
    /// Looks for them among all processes.
    pub fn find() -> Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            if name.starts_with("ksoftirqd/") {
                files.push(path.join("schedstat"));
            }
        }
        Ok(Self { files })
    }

    /// CPU time that they have had since the start of the system.
    pub fn spent(&self) -> Result<Duration> {
        self.files.iter().map(|file| spent(file)).sum()
    }
}

/// The CPU time in a thread's `schedstat`.
pub fn spent(path: &Path) -> Result<Duration> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let first = text.split_whitespace().next();
    let first = first.context("an empty schedstat")?.parse();
    first.map(Duration::from_nanos).context("schedstat is not a number")
}
