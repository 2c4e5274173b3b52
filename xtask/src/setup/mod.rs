//! `cargo xtask setup`: finds what building, testing and the demo need and installs what is
//! missing. It says what it does, and does nothing when all is there.

pub mod debian;
mod linker;
mod python;
mod requirements;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::bpf_toolchain::{self, Compiler, Toolchain};
use crate::progress;
use requirements::Requirements;

/// Finds or installs everything.
///
/// # Errors
/// Something is missing and cannot be installed; the message says what to do.
pub fn run() -> Result<()> {
    ensure().map(drop)
}

/// Finds or installs everything, and returns the toolchain for the BPF target.
///
/// # Errors
/// Something is missing and cannot be installed; the message says what to do.
pub fn ensure() -> Result<Toolchain> {
    let wanted = Requirements::read()?;
    debian::ensure(&wanted.debian)?;
    let compiler = compiler()?;
    let linker = linker::ensure(&compiler)?;
    let clippy = clippy(&compiler)?;
    python::ensure(&wanted.python)?;
    eprintln!("setup: ready; eBPF: {}", compiler.description);
    Ok(Toolchain { compiler, linker, clippy: Some(clippy) })
}

/// A compiler with the standard library's sources: what is there, or rustup's nightly, or Debian's.
fn compiler() -> Result<Compiler> {
    if let Some(compiler) = bpf_toolchain::find_compiler() {
        return Ok(compiler);
    }
    eprintln!("setup: the BPF target needs a rustc with the standard library's sources");
    if has_rustup() {
        let mut command = Command::new("rustup");
        command.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
        command.args(["--component", "rust-src", "--component", "clippy"]);
        match progress::step("rustup", "rustup: nightly with rust-src", &mut command) {
            Ok(()) => {}
            Err(error) => eprintln!("setup: not from rustup ({error}); trying Debian's"),
        }
    }
    if let Some(compiler) = bpf_toolchain::find_compiler() {
        return Ok(compiler);
    }
    if !debian::is_debian() {
        bail!(
            "install a nightly toolchain with sources: \
             `rustup toolchain install nightly --component rust-src --component clippy`"
        );
    }
    debian::ensure(&["rustc-web".into(), "rust-web-src".into(), "rust-web-clippy".into()])?;
    bpf_toolchain::find_compiler().ok_or_else(|| {
        anyhow::anyhow!(
            "rustc-web and rust-web-src are installed, but /usr/bin/rustc has no sources"
        )
    })
}

/// The compiler's own clippy.
fn clippy(compiler: &Compiler) -> Result<std::path::PathBuf> {
    if let Some(path) = bpf_toolchain::find_clippy(compiler) {
        return Ok(path);
    }
    if compiler.rustc == Path::new("/usr/bin/rustc") && debian::is_debian() {
        debian::ensure(&["rust-web-clippy".into()])?;
    } else {
        let mut command = Command::new("rustup");
        command.args(["component", "add", "clippy", "--toolchain", "nightly"]);
        progress::step("rustup-clippy", "rustup: clippy for nightly", &mut command)?;
    }
    bpf_toolchain::find_clippy(compiler)
        .ok_or_else(|| anyhow::anyhow!("no clippy beside {}", compiler.rustc.display()))
}

fn has_rustup() -> bool {
    Command::new("rustup").arg("--version").output().is_ok_and(|output| output.status.success())
}
