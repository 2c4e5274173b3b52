//! `cargo xtask setup`: finds what building, testing and the demo need and installs what is
//! missing. It says what it does, and does nothing when all is there.

pub mod debian;
mod linker;
mod python;
mod requirements;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::bpf_toolchain::{self, Compiler, DEBIAN, NIGHTLY, Toolchain};
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

/// A compiler with the standard library's sources for whose LLVM a bpf-linker is there or can be
/// built: what is there, or Debian's, or rustup's.
fn compiler() -> Result<Compiler> {
    if let Some(compiler) = usable()? {
        return Ok(compiler);
    }
    eprintln!("setup: the BPF target needs a rustc with the standard library's sources");
    let debians: Vec<String> =
        ["rustc-web", "rust-web-src", "rust-web-clippy"].map(String::from).into();
    if debian::offers(&debians)? {
        debian::ensure(&debians)?;
        if let Some(compiler) = usable()? {
            return Ok(compiler);
        }
    }
    if has_rustup() {
        let mut command = Command::new("rustup");
        command.args(["toolchain", "install", NIGHTLY, "--profile", "minimal"]);
        command.args(["--component", "rust-src", "--component", "clippy"]);
        progress::step("rustup", &format!("rustup: {NIGHTLY} with rust-src"), &mut command)?;
        if let Some(compiler) = usable()? {
            return Ok(compiler);
        }
    }
    let found: Vec<String> = bpf_toolchain::find_compilers()
        .into_iter()
        .map(|compiler| format!("\n  {}: no bpf-linker for it", compiler.description))
        .collect();
    bail!(
        "no compiler for the BPF target can be had:{}\n{}",
        if found.is_empty() {
            "\n  none with the standard library's sources".into()
        } else {
            found.concat()
        },
        format_args!(
            "install rustup and run `rustup toolchain install {NIGHTLY} --component rust-src \
             --component clippy`; LLVM 22 with its headers is needed as well (LLVM_PREFIX names \
             its place)"
        )
    )
}

/// The preferred one of those that are there: one that has its linker already, else one that can
/// get it.
fn usable() -> Result<Option<Compiler>> {
    let mut compilers = bpf_toolchain::find_compilers();
    let ready = |compiler: &Compiler| bpf_toolchain::find_linker(compiler.llvm).is_some();
    if let Some(place) = compilers.iter().position(ready) {
        return Ok(Some(compilers.swap_remove(place)));
    }
    for compiler in compilers {
        if linker::possible(compiler.llvm)? {
            return Ok(Some(compiler));
        }
    }
    Ok(None)
}

/// The compiler's own clippy.
fn clippy(compiler: &Compiler) -> Result<std::path::PathBuf> {
    if let Some(path) = bpf_toolchain::find_clippy(compiler) {
        return Ok(path);
    }
    if compiler.rustc == Path::new(DEBIAN) && debian::is_debian() {
        debian::ensure(&["rust-web-clippy".into()])?;
    } else {
        let toolchain = toolchain_of(&compiler.rustc)?;
        let mut command = Command::new("rustup");
        command.args(["component", "add", "clippy", "--toolchain", &toolchain]);
        progress::step("rustup-clippy", "rustup: clippy for the BPF target", &mut command)?;
    }
    bpf_toolchain::find_clippy(compiler)
        .ok_or_else(|| anyhow::anyhow!("no clippy beside {}", compiler.rustc.display()))
}

/// The toolchain's name: rustup keeps it in `toolchains/NAME/bin/rustc`.
fn toolchain_of(rustc: &Path) -> Result<String> {
    let name = rustc.ancestors().nth(2).and_then(Path::file_name);
    let name = name.with_context(|| format!("{} is in no toolchain", rustc.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

fn has_rustup() -> bool {
    Command::new("rustup").arg("--version").output().is_ok_and(|output| output.status.success())
}
