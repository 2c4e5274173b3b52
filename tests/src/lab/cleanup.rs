//! Taking away: namespaces with the processes in them, pins, directories.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::IntoRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Once, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;

/// Names of laboratories are this, the process id of who made it, and a number.
pub const PREFIX: &str = "mlb-";
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Where laboratories keep their files.
pub fn directories() -> PathBuf {
    std::env::temp_dir()
}

/// The BPF file system.
pub fn bpffs() -> &'static Path {
    Path::new("/sys/fs/bpf")
}

/// Takes away all that is called `name` or begins with it and a hyphen. Errors are of no use to
/// anybody here: what cannot be removed now is stale for the next process.
pub fn remove(name: &str) {
    for namespace in entries(Path::new("/run/netns")).filter(|entry| belongs(entry, name)) {
        end_processes(&namespace);
        let _ = Command::new("ip").args(["netns", "del", &namespace]).output();
    }
    for place in [directories(), bpffs().to_owned()] {
        for entry in entries(&place).filter(|entry| belongs(entry, name)) {
            let _ = fs::remove_dir_all(place.join(entry));
        }
    }
}

/// SIGKILL to all that runs in a namespace, until nothing does: a process on its way out could
/// still pin something.
fn end_processes(namespace: &str) {
    for _ in 0..100 {
        let pids = processes_in(namespace);
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Held by whoever makes something that [`remove`] would have to take away; once a signal has come
/// nobody gets it any more.
static GATE: RwLock<()> = RwLock::new(());
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Leave to make something; the guard is held until it is made.
pub fn gate() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Holds a thread for ever when a signal has come: what it sees go wrong now is our own cleaning,
/// and it must not end the process before that is done.
pub fn stay_if_stopping() {
    while STOPPING.load(Ordering::Relaxed) {
        std::thread::park();
    }
}

/// Takes away what processes left that no longer run.
///
/// # Errors
/// None yet; the signature leaves room for a directory that cannot be read.
pub fn stale() -> Result<()> {
    let places = [PathBuf::from("/run/netns"), directories(), bpffs().to_owned()];
    for name in places.iter().flat_map(|place| entries(place)) {
        let Some(pid) = owner(&name) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            remove(&format!("{PREFIX}{pid}"));
        }
    }
    Ok(())
}

static SELF_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(signal: i32) {
    let byte = [signal as u8];
    // SAFETY: write(2) is async-signal-safe, the buffer is one byte long, and the descriptor is
    // never closed once it is here.
    unsafe { libc::write(SELF_PIPE.load(Ordering::Relaxed), byte.as_ptr().cast(), 1) };
}

/// From now on SIGINT, SIGTERM and SIGHUP take away this process's laboratories before it ends.
///
/// # Errors
/// The handlers cannot be installed.
pub fn on_signals() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = install());
    result
}

fn install() -> Result<()> {
    let (mut reader, writer) = UnixStream::pair().context("a pipe for signals")?;
    SELF_PIPE.store(writer.into_raw_fd(), Ordering::Relaxed);
    std::thread::spawn(move || {
        let mut byte = [0];
        if reader.read_exact(&mut byte).is_err() {
            return;
        }
        STOPPING.store(true, Ordering::Relaxed);
        let _closed = GATE.write().unwrap_or_else(PoisonError::into_inner);
        remove(&format!("{PREFIX}{}", std::process::id()));
        let _ = writeln!(std::io::stderr(), "interrupted; everything was taken away");
        std::process::exit(128 + i32::from(byte[0]));
    });
    let action =
        SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in SIGNALS {
        // SAFETY: the handler only does what is async-signal-safe.
        unsafe { sigaction(signal, &action) }.context("sigaction")?;
    }
    Ok(())
}

fn entries(directory: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

fn belongs(entry: &str, name: &str) -> bool {
    entry.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The process id in the name of a laboratory.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Processes in a namespace of ours: all of them were started by its laboratory.
fn processes_in(namespace: &str) -> Vec<Pid> {
    let output = Command::new("ip").args(["netns", "pids", namespace]).output();
    let Ok(output) = output else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_laboratories_are_left_alone() {
        assert!(belongs("mlb-12-0-client", "mlb-12"));
        assert!(belongs("mlb-12-0", "mlb-12-0"));
        assert!(!belongs("mlb-123-0-client", "mlb-12"));
        assert_eq!(owner("mlb-12-0-client"), Some(12));
        assert_eq!(owner("mlbx-12"), None);
    }
}
