//! One daemon for each state directory: a lock that the kernel lets go of when its holder ends,
//! however it ends.

use std::fs::{File, read_to_string};
use std::io::{Seek, Write};
use std::path::Path;

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

const NAME: &str = "medlb.lock";

/// Held as long as the daemon runs.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Takes the lock. `state_dir` is made if it is missing.
///
/// # Errors
/// Another daemon holds it: "medlb is already running (pid N)".
pub fn take(state_dir: &Path) -> anyhow::Result<Lock> {
    std::fs::create_dir_all(state_dir)
        .with_context(|| format!("cannot make global.state_dir {}", state_dir.display()))?;
    let path = state_dir.join(NAME);
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let Ok(mut file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
        let pid = read_to_string(&path).unwrap_or_default();
        let (pid, dir) = (pid.trim(), state_dir.display());
        bail!(
            "medlb is already running (pid {pid}) with global.state_dir {dir}: stop it first, or \
             give this one a socket, state_dir and pin_dir of its own"
        );
    };
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        file.sync_data()
    };
    write(&mut file).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Lock { _file: file })
}

/// The process that holds the lock, if one does.
pub fn holder(state_dir: &Path) -> Option<i32> {
    let path = state_dir.join(NAME);
    let file = File::open(&path).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => None,
        Err(_) => Some(read_to_string(&path).ok()?.trim().parse().unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_the_first_ones_pid_and_a_lock_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        assert_eq!(holder(&state), None);
        let lock = take(&state).unwrap();
        let pid = std::process::id();
        assert_eq!(holder(&state), i32::try_from(pid).ok());
        let message = take(&state).unwrap_err().to_string();
        assert!(message.contains(&format!("already running (pid {pid})")), "{message}");
        drop(lock);
        assert_eq!(holder(&state), None);
        take(&state).unwrap();
    }
}
