//! What must be so before anything is loaded, and plain words where it is not.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::statfs;

/// f_type of a bpffs (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
/// Where bpffs is by convention; medlb mounts it there when it is missing.
const CONVENTION: &str = "/sys/fs/bpf";

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;

/// Checks privileges, the kernel and the object.
pub fn kernel(object: &[u8]) -> anyhow::Result<()> {
    ensure!(
        !object.is_empty(),
        "this medlb was built without its eBPF object: run `cargo xtask build-ebpf`, then build \
         again"
    );
    privileged()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read /proc/sys/kernel/osrelease")?;
    version(release.trim())?;
    ensure!(
        Path::new("/sys/kernel/btf/vmlinux").exists(),
        "this kernel has no BTF (/sys/kernel/btf/vmlinux): use one that is built with \
         CONFIG_DEBUG_INFO_BTF=y, as Debian's, Ubuntu's and Red Hat's are"
    );
    Ok(())
}

/// Checks this process's privileges alone: the first thing that a start looks at, before a
/// directory or a socket that it may not make gives a lesser reason.
///
/// # Errors
/// A capability is missing; the message names it.
pub fn privileged() -> anyhow::Result<()> {
    privileges(&fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?)
}

/// Judges the effective capabilities in the text of /proc/self/status.
fn privileges(status: &str) -> anyhow::Result<()> {
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .context("/proc/self/status has no CapEff line")?;
    let has = |bit: u32| capabilities & (1 << bit) != 0;
    let mut missing = Vec::new();
    if !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !has(CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    ensure!(
        missing.is_empty(),
        "medlb may not load XDP programs ({} missing): run it as root, or with these capabilities",
        missing.join(" and ")
    );
    Ok(())
}

/// Judges a kernel release such as `6.1.0-18-amd64`.
fn version(release: &str) -> anyhow::Result<()> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>());
    let found = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => bail!("the kernel calls itself {release:?}, which is not a version"),
    };
    ensure!(
        found >= (6, 1),
        "this is Linux {release}, which lacks parts of BPF that medlb is made with: it needs 6.1 or \
         newer (Debian 12, Ubuntu 24.04 and Red Hat 10 have it)"
    );
    Ok(())
}

/// Makes sure that `pin_dir` can be made on a bpffs; mounts the usual one where it is missing.
pub fn bpffs(pin_dir: &Path) -> anyhow::Result<()> {
    if pin_dir.starts_with(CONVENTION) && !is_bpffs(Path::new(CONVENTION))? {
        mount(Some("bpf"), CONVENTION, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .with_context(|| {
                format!("cannot mount a bpffs: run `mount -t bpf bpf {CONVENTION}` as root")
            })?;
    }
    let existing = pin_dir
        .ancestors()
        .find(|path| path.exists())
        .with_context(|| format!("no part of pin_dir {} exists", pin_dir.display()))?;
    ensure!(
        is_bpffs(existing)?,
        "pin_dir {} is not on a bpffs: choose a directory below {CONVENTION}, or mount one there \
         with `mount -t bpf bpf DIRECTORY`",
        pin_dir.display()
    );
    let rest = pin_dir.strip_prefix(existing).unwrap_or(pin_dir);
    ensure!(
        !rest.to_string_lossy().contains('.'),
        "pin_dir {} has a dot in its name, which a bpffs does not allow: choose another",
        pin_dir.display()
    );
    Ok(())
}

fn is_bpffs(path: &Path) -> anyhow::Result<bool> {
    let status = statfs(path)
        .with_context(|| format!("cannot examine the file system of {}", path.display()))?;
    Ok(status.filesystem_type().0 as u32 == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert!(privileges("Name:\tx\nCapEff:\t000001ffffffffff\n").is_ok());
        // CAP_BPF and CAP_NET_ADMIN, nothing else.
        assert!(privileges("CapEff:\t0000008000001000\n").is_ok());
        let error = privileges("CapEff:\t0000000000000000\n").unwrap_err().to_string();
        assert!(error.contains("CAP_BPF and CAP_NET_ADMIN"), "{error}");
    }

    #[test]
    fn old_kernels_are_refused() {
        assert!(version("6.1.0-18-amd64").is_ok());
        assert!(version("6.18.44-fc-v445").is_ok());
        assert!(version("7.0").is_ok());
        assert!(version("5.15.0").unwrap_err().to_string().contains("6.1 or newer"));
        assert!(version("nonsense").is_err());
    }

    #[test]
    fn an_ordinary_directory_cannot_hold_pins() {
        let error = bpffs(Path::new("/tmp/medlb-pins")).unwrap_err().to_string();
        assert!(error.contains("not on a bpffs"), "{error}");
    }
}
