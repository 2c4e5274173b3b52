//! How many instructions it takes to forward a packet: a machine whose clock moves by one nanosecond
//! for each instruction (`-icount shift=0`), so that its time is a count, the same on every host.
//! `count.sh` runs in the machine and sets up what forwards; tests/src/bin/count.rs sends and reads
//! the clock.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::guest::{self, Ended};
use super::image::{self, Contents};
use super::scratch::Scratch;
use super::{Options, build, directory, kernels};
use crate::setup::debian;
use crate::workspace;

const KERNEL: &str = "6.12";
/// Those that they need come along.
const MODULES: [&str; 8] = [
    "veth",
    "crc32c_generic", // libcrc32c asks for it by name
    "ip_vs_wlc",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nf_conntrack",
];
const TOOLS: [&str; 5] =
    ["/usr/sbin/ip", "/usr/bin/nsenter", "/usr/sbin/ethtool", "/usr/sbin/nft", "/usr/sbin/ipvsadm"];
/// One thread, and a clock of executed instructions that leaps over idleness.
const COUNTING: [&str; 2] = ["-icount", "shift=0,sleep=off"];
const SCRIPT: &str = include_str!("count.sh");
/// What the daemon logs when packets are forwarded.
const READY: &str = "ready services";

/// Counts, and prints a table.
///
/// # Errors
/// Something is missing, or a count could not be made.
pub fn run(options: &Options) -> Result<()> {
    debian::ensure(&["iproute2", "ethtool", "nftables", "ipvsadm"].map(Into::into))?;
    let programs = build(
        "verify-count",
        &["--package", "tests", "--package", "lb-userspace", "--bin", "count", "--bin", "medlb"],
        &["count", "medlb"],
    )?;
    let name = options.only.first().map_or(KERNEL, String::as_str);
    let kernel = kernels::find_all(|kernel| kernel == name)?.into_iter().next();
    let kernel = kernel.with_context(|| format!("there is no kernel {name}"))?;
    let scratch = Scratch::new(&directory())?;
    let objects = workspace::bpf_objects();
    let script = format!("objects={}\nready='{READY}'\n{SCRIPT}", objects.display());
    let contents =
        Contents { programs: &programs, tools: &TOOLS, modules: &MODULES, script: &script };
    let initramfs = image::build(&kernel, contents, scratch.path())?;
    let console = directory().join(format!("console-count-{name}.log"));
    let patience = Duration::from_secs(options.limit);
    eprintln!("  counting on Linux {}", kernel.release);
    let ended: Ended = guest::boot(&kernel, &initramfs, &console, &COUNTING, patience)?;
    let text = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
    print!("{}", table(&kernel.release, &text));
    if let Some(died) = guest::why_it_died(ended, &text, patience) {
        bail!("{died}");
    }
    let failed: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("failed ")).collect();
    if !failed.is_empty() {
        bail!("not counted: {}; the console is {}", failed.join(", "), console.display());
    }
    Ok(())
}

/// The counts that the console names, as a table of documentation.
fn table(release: &str, console: &str) -> String {
    let mut text = format!(
        "\nLinux {release}, x86-64\n\n\
         | forwarder | flows | instructions a packet | least | most | beyond XDP_DROP |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n"
    );
    let mut base = None;
    for line in console.lines().filter_map(|line| line.trim().strip_prefix("count ")) {
        let fields: Vec<&str> = line.split('|').collect();
        let [name, flows, median, least, most] = fields[..] else { continue };
        let Ok(count) = median.parse::<i64>() else { continue };
        let base = *base.get_or_insert(count);
        let beyond = count - base;
        text += &format!("| {name} | {flows} | {median} | {least} | {most} | {beyond} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shown_beside_the_first() {
        let console = "boot\r\ncount XDP_DROP|1|700|699|701\r\nnoise\ncount medlb, DR|1|1400|1|2\n";
        let text = table("6.12", console);
        assert!(text.contains("| XDP_DROP | 1 | 700 | 699 | 701 | 0 |"), "{text}");
        assert!(text.contains("| medlb, DR | 1 | 1400 | 1 | 2 | 700 |"), "{text}");
    }
}
