//! `cargo xtask bench`: what a packet costs on this machine.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::unistd::Uid;

use crate::{bpf_toolchain, ebpf, test, workspace};

/// How much, and where to.
#[derive(Args)]
pub struct Options {
    /// Shorter, and without tables for a million flows
    #[arg(long)]
    quick: bool,
    /// Also writes the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only rows with this text in their name or group
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
    // Not a release build: what is timed runs in the kernel.
    test::cargo(&["build", "--quiet", "--package", "tests", "--bin", "bench"], &[])?;
    let mut bench = Command::new(workspace::target().join("debug/bench"));
    bench.args(options.quick.then_some("--quick"));
    if let Some(path) = &options.json {
        bench.arg("--json").arg(path);
    }
    if let Some(text) = &options.only {
        bench.arg("--only").arg(text);
    }
    if !bench.status().context("cannot run target/debug/bench")?.success() {
        bail!("the benchmark failed");
    }
    Ok(())
}
