//! A laboratory: network namespaces joined by veth pairs and bridges, processes in them, and medlb
//! between them. Everything has a unique name and is taken away again on drop, on a panic, on
//! SIGINT, SIGTERM and SIGHUP; what a killed process left is taken away by the next one.

pub mod cleanup;
mod counters;
mod guide;
mod medlb;
mod netns;
mod pass;
mod process;
mod routed;
mod site;
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Uid;

pub use guide::{Guide, Promised};
pub use medlb::{Medlb, find, real};
pub use netns::Netns;
pub use pass::Pass;
pub use process::{Process, run};
pub use site::{Arms, Method, Site};
pub use traffic::report;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One laboratory: a name, a directory for files, and the namespaces made in it.
#[derive(Debug)]
pub struct Lab {
    name: String,
    directory: PathBuf,
}

impl Lab {
    /// Makes an empty one, after taking away what processes that no longer run left behind.
    ///
    /// # Errors
    /// Not root, or the directory cannot be made.
    pub fn new() -> Result<Self> {
        if !Uid::effective().is_root() {
            bail!(
                "network namespaces and eBPF need root: \
                 run `sudo -E env PATH=\"$PATH\" cargo xtask test` (or demo)"
            );
        }
        cleanup::on_signals()?;
        cleanup::stale()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{number}", cleanup::PREFIX, std::process::id());
        let directory = cleanup::directories().join(&name);
        let _gate = cleanup::gate();
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { name, directory })
    }

    /// The prefix of all of its names.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Files of this laboratory: logs, configurations, sockets.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a medlb of this laboratory pins.
    pub fn pins(&self) -> PathBuf {
        cleanup::bpffs().join(&self.name)
    }

    /// A new namespace with its loopback up and the settings of testing.md.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn namespace(&self, role: &str) -> Result<Netns> {
        Netns::create(format!("{}-{role}", self.name), self.directory.clone())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        cleanup::stay_if_stopping();
        cleanup::remove(&self.name);
    }
}

/// Asks `ready` again and again until it answers.
///
/// # Errors
/// It does not within `limit`; the message names `what` and the last error.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let last = match ready() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if started.elapsed() > limit {
            let because = last.map(|error| format!(" ({error:#})")).unwrap_or_default();
            bail!("{what}: not within {limit:?}{because}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program built beside this one (`target/debug/NAME`), or the one that `MEDLB_BIN_DIR` names.
///
/// # Errors
/// It is not there.
pub fn sibling(name: &str) -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("MEDLB_BIN_DIR") {
        return Ok(PathBuf::from(directory).join(name));
    }
    let me = std::env::current_exe().context("own path")?;
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug");
    me.ancestors()
        .skip(1)
        .take(2) // tests lie in deps/
        .chain([built.as_path()])
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("no `{name}` beside {}: `cargo build --bins` makes it", me.display())
        })
}
