//! What any host needs, looked at without a daemon and without a configuration.

use std::fs;
use std::path::Path;

use crate::api::model::{Finding, Level};

/// Oldest kernel that medlb is tested with.
const KERNEL: (u32, u32) = (6, 1);

/// All of it.
pub fn findings() -> Vec<Finding> {
    vec![kernel(), btf(), jit(), bpffs(), clock(), port_range()]
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into());
    let oldest = format!("{}.{}", KERNEL.0, KERNEL.1);
    match version(&release) {
        Some(version) if version >= KERNEL => Finding::ok("kernel", release),
        Some(_) => {
            let advice = format!("medlb needs Linux {oldest} or newer: upgrade the kernel");
            Finding::bad(Level::Fail, "kernel", release, advice)
        }
        None => {
            let advice = format!("make sure that it is Linux {oldest} or newer");
            Finding::bad(Level::Warn, "kernel", release, advice)
        }
    }
}

/// Major and minor number of `6.1.0-28-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn btf() -> Finding {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Finding::ok("BTF", "the kernel describes its types");
    }
    Finding::bad(
        Level::Warn,
        "BTF",
        "/sys/kernel/btf/vmlinux is missing",
        "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all distributions' are",
    )
}

fn jit() -> Finding {
    match read("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("1") => Finding::ok("BPF JIT", "on"),
        Some("2") => Finding::bad(
            Level::Warn,
            "BPF JIT",
            "on, with debugging output",
            "`sysctl net.core.bpf_jit_enable=1`",
        ),
        Some("0") => Finding::bad(
            Level::Fail,
            "BPF JIT",
            "off: every packet is interpreted, many times slower",
            "`sysctl net.core.bpf_jit_enable=1`",
        ),
        // A kernel with CONFIG_BPF_JIT_ALWAYS_ON may not have the switch, nor show it to everyone.
        _ => Finding::ok("BPF JIT", "no switch to look at: always on"),
    }
}

fn bpffs() -> Finding {
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    match bpffs_mount(&mounts) {
        Some(at) => Finding::ok("bpffs", format!("mounted at {at}")),
        None => Finding::bad(
            Level::Warn,
            "bpffs",
            "not mounted",
            "`mount -t bpf bpf /sys/fs/bpf`; `medlb run` does it when it runs as root",
        ),
    }
}

fn bpffs_mount(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "bpf").then_some(at)
    })
}

/// Health-check and audit times are compared with those of archives and modalities.
fn clock() -> Finding {
    // SAFETY: an all-zero `timex` is a valid one, and asks for nothing to be changed.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a `timex` of our own that outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    let advice =
        "run chrony, ntpd or systemd-timesyncd: logs of other systems are compared by time";
    match state {
        -1 => {
            let error = std::io::Error::last_os_error();
            Finding::bad(Level::Warn, "clock", format!("cannot be asked: {error}"), advice)
        }
        _ if state == libc::TIME_ERROR || timex.status & libc::STA_UNSYNC != 0 => {
            Finding::bad(Level::Warn, "clock", "not synchronised", advice)
        }
        _ => Finding::ok("clock", "synchronised"),
    }
}

fn port_range() -> Finding {
    match read("/proc/sys/net/ipv4/ip_local_port_range") {
        Some(range) => Finding::ok("local ports", range.replace('\t', " to ")),
        None => Finding::bad(
            Level::Warn,
            "local ports",
            "net.ipv4.ip_local_port_range cannot be read",
            "is /proc mounted?",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read_from_releases() {
        assert_eq!(version("6.1.0-28-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("6.18.5"), Some((6, 18)));
        assert_eq!(version("7.2-rc1"), Some((7, 2)));
        assert_eq!(version("mystery"), None);
        assert!((6, 18) > KERNEL && (5, 15) < KERNEL);
    }

    #[test]
    fn a_bpf_mount_is_found_among_others() {
        let mounts = "proc /proc proc rw 0 0\nbpf /sys/fs/bpf bpf rw,nosuid 0 0\n";
        assert_eq!(bpffs_mount(mounts), Some("/sys/fs/bpf"));
        assert_eq!(bpffs_mount("bpf /x tmpfs rw 0 0\n"), None);
    }

    #[test]
    fn every_finding_that_is_not_fine_says_what_to_do() {
        for finding in findings() {
            assert!(finding.level == Level::Ok || finding.advice.is_some(), "{finding:?}");
        }
    }
}
