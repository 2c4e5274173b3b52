//! `cargo xtask bench`: what a packet, a connection and the daemon cost on this machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::unistd::Uid;

use crate::{bpf_toolchain, ebpf, test, workspace};

/// How much, and where to.
#[derive(Args)]
pub struct Options {
    /// What to measure: packets, wire, connections, control; everything when none is named
    parts: Vec<String>,
    /// Shorter, and without tables for a million flows
    #[arg(long)]
    quick: bool,
    /// Also writes the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Also writes the tables to this file, as a page of documentation
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Of the packets, only rows with this text in their name or group
    #[arg(long)]
    only: Option<String>,
}

/// Builds, and runs the bench program of the tests crate.
///
/// # Errors
/// Not root, something does not build, or a program does not do what its row says.
pub fn run(options: &Options) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!(
            "the benchmark loads eBPF programs, so it needs root: \
             `sudo -E env PATH=\"$PATH\" cargo xtask bench`"
        );
    }
    ebpf::build(&bpf_toolchain::find_ready()?)?;
    // The daemon is measured, too, and runs beside what it is measured with.
    let packages = ["--package", "lb-userspace", "--package", "tests", "--bins"];
    let build = [&["build", "--quiet", "--release"], packages.as_slice()].concat();
    test::cargo(&build, &[])?;
    let mut bench = Command::new(workspace::target().join("release/bench"));
    bench.args(&options.parts);
    bench.args(options.quick.then_some("--quick"));
    for (flag, path) in [("--json", &options.json), ("--markdown", &options.markdown)] {
        if let Some(path) = path {
            bench.arg(flag).arg(path);
        }
    }
    if let Some(text) = &options.only {
        bench.arg("--only").arg(text);
    }
    if !bench.status().context("cannot run target/release/bench")?.success() {
        bail!("the benchmark failed");
    }
    Ok(())
}
