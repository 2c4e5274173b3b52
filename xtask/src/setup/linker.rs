//! bpf-linker, built for the LLVM of the compiler whose output it reads.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::debian;
use crate::bpf_toolchain::{self, Compiler};
use crate::{progress, workspace};

/// The release whose features name LLVM versions the way we ask for them.
const VERSION: &str = "0.13.0";

/// The LLVM versions that this release can be built for.
const LLVMS: std::ops::RangeInclusive<u32> = 21..=23;

/// Whether a bpf-linker for this LLVM can be built: its development files are there, or Debian has
/// them.
///
/// # Errors
/// apt fails.
pub fn possible(llvm: u32) -> Result<bool> {
    if !LLVMS.contains(&llvm) {
        return Ok(false);
    }
    let installed = env::var_os("LLVM_PREFIX").is_some()
        || Path::new(&format!("/usr/lib/llvm-{llvm}/bin/llvm-config")).exists();
    Ok(installed || debian::offers(&packages(llvm))?)
}

fn packages(llvm: u32) -> [String; 2] {
    [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]
}

/// Finds or builds it; the machine's own bpf-linker, if it is for another LLVM, stays as it is.
///
/// # Errors
/// LLVM's development files are missing, or the build fails.
pub fn ensure(compiler: &Compiler) -> Result<PathBuf> {
    let llvm = compiler.llvm;
    if let Some(path) = bpf_toolchain::find_linker(llvm) {
        return Ok(path);
    }
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if debian::is_debian() {
        debian::ensure(&packages(llvm))?;
    }
    if !prefix.join("bin/llvm-config").exists() && env::var_os("LLVM_PREFIX").is_none() {
        bail!(
            "bpf-linker needs LLVM {llvm} with its headers: install it and set LLVM_PREFIX, \
             so that $LLVM_PREFIX/bin/llvm-config exists"
        );
    }
    let prefix = env::var_os("LLVM_PREFIX").map_or(prefix, PathBuf::from);
    install(llvm, &prefix)?;
    bpf_toolchain::find_linker(llvm).context("bpf-linker was installed but does not run")
}

fn install(llvm: u32, prefix: &Path) -> Result<()> {
    eprintln!("setup: bpf-linker {VERSION} for LLVM {llvm}");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["install", "bpf-linker", "--locked", "--force", "--version", VERSION]);
    command.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    command.arg("--root").arg(workspace::tools());
    command.env("LLVM_PREFIX", prefix);
    command.current_dir("/");
    progress::step("bpf-linker", "building bpf-linker (a minute or two)", &mut command)
}
