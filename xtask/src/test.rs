//! `cargo xtask test`: everything, as one command.

use std::env;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::unistd::Uid;

use crate::{ebpf, setup, verify, workspace};

/// Sets up, builds, and runs the tests on the host, then those that need root.
///
/// # Errors
/// Not root, something does not build, or a test fails.
pub fn run(arguments: &[String]) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!(
            "the tests load eBPF programs and make network namespaces, so they need root: \
             `sudo -E env PATH=\"$PATH\" cargo xtask test`"
        );
    }
    let toolchain = setup::ensure()?;
    ebpf::build(&toolchain)?;
    cargo(&["build", "--package", "lb-userspace", "--package", "tests", "--bins"], &[])?;
    eprintln!("test: on the host");
    let host = ["lb-common", "lb-userspace", "xtask"];
    let mut failed = Vec::new();
    for package in host {
        if cargo(&["test", "--package", package, "--no-fail-fast"], arguments).is_err() {
            failed.push(package);
        }
    }
    eprintln!("test: on the loaded program and in network namespaces");
    if cargo(&["test", "--package", "tests", "--no-fail-fast"], arguments).is_err() {
        failed.push("tests");
    }
    // A filter is for tests with names.
    if arguments.is_empty() {
        eprintln!("test: on the oldest and the newest kernel, in virtual machines");
        if let Err(error) = verify::oldest_and_newest() {
            eprintln!("error: {error:#}");
            failed.push("other kernels");
        }
    }
    if !failed.is_empty() {
        bail!("tests failed in {}", failed.join(", "));
    }
    Ok(())
}

/// Runs cargo in the workspace, its output for all to see.
///
/// # Errors
/// It fails.
pub fn cargo(command: &[&str], arguments: &[String]) -> Result<()> {
    let mut cargo = cargo_command(command);
    if !arguments.is_empty() {
        cargo.arg("--").args(arguments);
    }
    let status = cargo.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed ({status})", command.join(" "));
    }
    Ok(())
}

/// Cargo in the workspace, not started yet.
pub fn cargo_command(command: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(command).current_dir(workspace::root()).env_remove("CARGO_TARGET_DIR");
    cargo
}
