//! Debian packages.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Uid;

use crate::progress;

/// Asked by maintainer scripts before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// What it says while setup installs.
const FORBID: &str = "#!/bin/sh\n# medlb's `cargo xtask setup` is installing packages.\nexit 101\n";

/// Whether apt and dpkg run this machine.
pub fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && Path::new("/usr/bin/apt-get").exists()
}

/// Installs those of `packages` that are missing.
///
/// # Errors
/// Not a Debian machine, not root, or apt fails.
pub fn ensure(packages: &[String]) -> Result<()> {
    if !is_debian() {
        return without_debian(packages);
    }
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !Uid::effective().is_root() {
        bail!(
            "these Debian packages are missing; install them with\n  sudo apt-get install {list}"
        );
    }
    eprintln!("setup: Debian packages: {list}");
    if !known(&missing)? {
        let mut update = Command::new("apt-get");
        update.arg("update");
        progress::step("apt-update", "apt-get update", &mut update)?;
    }
    let install = || {
        let mut install = Command::new("apt-get");
        install.args(["install", "-y", "--no-install-recommends"]).args(&missing);
        install.env("DEBIAN_FRONTEND", "noninteractive");
        progress::step("apt-install", "apt-get install", &mut install)
    };
    let _quiet = NoServices::hold(Path::new(POLICY))?;
    if install().is_ok() {
        return Ok(());
    }
    // A package list from last month names files that the mirror no longer has.
    let mut update = Command::new("apt-get");
    update.arg("update");
    progress::step("apt-update", "apt-get update, and once more", &mut update)?;
    install()
}

/// Whether apt can install all of them. Elsewhere it can install nothing.
///
/// # Errors
/// apt fails.
pub fn offers(packages: &[String]) -> Result<bool> {
    if !is_debian() {
        return Ok(false);
    }
    if missing(packages)?.is_empty() || known(packages)? {
        return Ok(true);
    }
    if !Uid::effective().is_root() {
        return Ok(false);
    }
    let mut update = Command::new("apt-get");
    update.arg("update");
    progress::step("apt-update", "apt-get update", &mut update)?;
    known(packages)
}

/// Elsewhere only the programs themselves can be looked for.
fn without_debian(packages: &[String]) -> Result<()> {
    const PROGRAMS: &[(&str, &str)] = &[
        ("iproute2", "ip"),
        ("ethtool", "ethtool"),
        ("util-linux", "nsenter"),
        ("build-essential", "cc"),
        ("dcmtk", "storescp"),
        ("python3-venv", "python3"),
        ("orthanc", "Orthanc"),
        ("nginx-light", "nginx"),
        ("slapd", "slapd"),
        ("ldap-utils", "ldapsearch"),
        ("openssl", "openssl"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> =
        std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).collect();
    let found = |program: &str| directories.iter().any(|place| place.join(program).exists());
    let missing: Vec<String> = PROGRAMS
        .iter()
        .filter(|(package, program)| packages.iter().any(|p| p == package) && !found(program))
        .map(|(package, program)| format!("{program} (Debian's package {package})"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("this is not Debian, so install these yourself: {}", missing.join(", "));
}

fn missing(packages: &[String]) -> Result<Vec<String>> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${binary:Package} ${db:Status-Status}\n"])
        .args(packages)
        .output()
        .context("cannot run dpkg-query")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let installed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .filter_map(|name| name.split(':').next())
        .collect();
    Ok(packages.iter().filter(|name| !installed.contains(name.as_str())).cloned().collect())
}

/// Whether apt's lists offer all of them (a fresh image has no lists).
fn known(packages: &[String]) -> Result<bool> {
    let output = Command::new("apt-cache")
        .arg("policy")
        .args(packages)
        .output()
        .context("cannot run apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let offered = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
        .count();
    Ok(offered == packages.len())
}

/// While it lives, installed packages start no services: tests start their own copies. A shell takes
/// the file away when this process ends, however it does.
struct NoServices(Option<Child>);

impl NoServices {
    fn hold(policy: &Path) -> Result<Self> {
        let there = fs::read_to_string(policy).ok();
        if there.as_ref().is_some_and(|text| text != FORBID) {
            return Ok(Self(None)); // the machine's own
        }
        let shell = Command::new("sh")
            .args(["-c", "trap '' INT TERM HUP; cat >/dev/null; rm -f \"$0\""])
            .arg(policy)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C is not for it
            .spawn()
            .context("cannot run sh")?;
        let held = Self(Some(shell));
        let written = fs::write(policy, FORBID)
            .and_then(|()| fs::set_permissions(policy, fs::Permissions::from_mode(0o755)));
        written.with_context(|| format!("cannot write {}", policy.display()))?;
        Ok(held)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(shell) = &mut self.0 {
            drop(shell.stdin.take());
            let _ = shell.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_held_back_for_a_while_and_a_policy_of_the_machine_stays() {
        let policy = std::env::temp_dir().join(format!("medlb-policy-{}", std::process::id()));
        let held = NoServices::hold(&policy).unwrap();
        assert_eq!(fs::read_to_string(&policy).unwrap(), FORBID);
        drop(held);
        assert!(!policy.exists());

        fs::write(&policy, FORBID).unwrap(); // left behind when the power went
        drop(NoServices::hold(&policy).unwrap());
        assert!(!policy.exists());

        fs::write(&policy, "#!/bin/sh\nexit 0\n").unwrap();
        drop(NoServices::hold(&policy).unwrap());
        assert!(policy.exists());
        fs::remove_file(&policy).unwrap();
    }

    #[test]
    fn services_start_again_after_setup_was_killed() {
        const CHILD: &str = "MEDLB_POLICY_CHILD";
        if let Some(policy) = std::env::var_os(CHILD) {
            let _held = NoServices::hold(Path::new(&policy)).unwrap();
            std::process::abort();
        }
        let policy = std::env::temp_dir().join(format!("medlb-policy-k{}", std::process::id()));
        let name = "setup::debian::tests::services_start_again_after_setup_was_killed";
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, &policy)
            .output()
            .unwrap()
            .status;
        assert!(!status.success());
        let started = std::time::Instant::now();
        while policy.exists() {
            assert!(started.elapsed().as_secs() < 30, "still there");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
