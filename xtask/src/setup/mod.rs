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

/// The preferred one of those that are there.
fn usable() -> Result<Option<Compiler>> {
    let ready = |llvm| bpf_toolchain::find_linker(llvm).is_some();
    choose(bpf_toolchain::find_compilers(), ready, linker::possible)
}

/// Of compilers, the preferred first: one for whose LLVM a linker is `ready`, else one that can get
/// it (`possible` may ask apt, and is asked no more often than it must be).
fn choose(
    mut compilers: Vec<Compiler>,
    ready: impl Fn(u32) -> bool,
    mut possible: impl FnMut(u32) -> Result<bool>,
) -> Result<Option<Compiler>> {
    if let Some(place) = compilers.iter().position(|compiler| ready(compiler.llvm)) {
        return Ok(Some(compilers.swap_remove(place)));
    }
    for compiler in compilers {
        if possible(compiler.llvm)? {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn compilers(llvms: &[u32]) -> Vec<Compiler> {
        let compiler = |&llvm: &u32| Compiler {
            rustc: format!("/r/{llvm}/bin/rustc").into(),
            llvm,
            version: String::new(),
            description: String::new(),
        };
        llvms.iter().map(compiler).collect()
    }

    fn chosen(llvms: &[u32], ready: &[u32], possible: &[u32]) -> Option<u32> {
        let chosen =
            choose(compilers(llvms), |l| ready.contains(&l), |l| Ok(possible.contains(&l)));
        chosen.unwrap().map(|compiler| compiler.llvm)
    }

    #[test]
    fn a_compiler_whose_linker_is_there_is_preferred_to_one_that_has_to_get_it() {
        assert_eq!(chosen(&[22, 23], &[23], &[22, 23]), Some(23));
        assert_eq!(chosen(&[22, 23], &[22, 23], &[]), Some(22));
    }

    #[test]
    fn a_compiler_for_which_no_linker_can_be_had_is_passed_over() {
        assert_eq!(chosen(&[24, 22], &[], &[22]), Some(22), "24: a newer LLVM than Debian's");
        assert_eq!(chosen(&[24], &[], &[22]), None, "and setup goes on to install one");
        assert_eq!(chosen(&[], &[22], &[22]), None);
    }

    #[test]
    fn apt_is_not_asked_when_a_linker_is_there() {
        let ask = |_| -> Result<bool> { panic!("asked") };
        assert!(choose(compilers(&[24, 22]), |llvm| llvm == 22, ask).unwrap().is_some());
    }

    #[test]
    fn clippy_is_added_to_the_toolchain_that_the_compiler_belongs_to() {
        let toolchains = Path::new("/root/.rustup/toolchains");
        let name = "nightly-2026-05-15-x86_64-unknown-linux-gnu";
        assert_eq!(toolchain_of(&toolchains.join(name).join("bin/rustc")).unwrap(), name);
        assert!(toolchain_of(Path::new("rustc")).is_err());
    }
}
