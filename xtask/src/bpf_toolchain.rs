//! Finds a compiler that can build for the BPF target: one with the standard library's sources at
//! hand, and a bpf-linker that was built for the same LLVM.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::workspace;

/// A rustc with sources.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// Path of the compiler.
    pub rustc: PathBuf,
    /// LLVM's major version, as `rustc -vV` says.
    pub llvm: u32,
    /// Exactly which: `rustc 1.96.0 with LLVM 22.1.8`.
    pub version: String,
    /// For people: `rustc 1.96.0 with LLVM 22 (/usr/bin/rustc)`.
    pub description: String,
}

/// All that is needed to build, and to lint when `clippy` is there.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// Path of bpf-linker.
    pub linker: PathBuf,
    /// The compiler's own cargo-clippy.
    pub clippy: Option<PathBuf>,
}

/// The nightly that rustup is asked for: its LLVM is one that Debian has development files for, and
/// the verifier is known to take what it makes. The newest nightly is neither.
pub const NIGHTLY: &str = "nightly-2026-05-15";

/// Debian's compiler (`rustc-web`, with the sources of `rust-web-src`).
pub const DEBIAN: &str = "/usr/bin/rustc";

impl Toolchain {
    /// What decides which instructions come out, on one line: compiler, LLVM and linker.
    ///
    /// # Errors
    /// The linker does not say its version.
    pub fn identity(&self) -> Result<String> {
        let linker = output(&self.linker, &["--version"])?;
        Ok(format!("{}, {}", self.compiler.version, linker.trim()))
    }
}

/// The toolchain that setup prepared.
///
/// # Errors
/// Something is missing; the message says that `cargo xtask setup` installs it.
pub fn find_ready() -> Result<Toolchain> {
    let hint = "run `cargo xtask setup`";
    let compilers = find_compilers();
    for compiler in &compilers {
        if let Some(linker) = find_linker(compiler.llvm) {
            let compiler = compiler.clone();
            let clippy = find_clippy(&compiler);
            return Ok(Toolchain { compiler, linker, clippy });
        }
    }
    match compilers.first() {
        None => bail!("no rustc with the standard library's sources: {hint}"),
        Some(compiler) => bail!("no bpf-linker for LLVM {}: {hint}", compiler.llvm),
    }
}

/// Compilers with the standard library's sources, the preferred first: Debian's, whose LLVM Debian
/// has as well; rustup's nightly of a known date; any other nightly.
pub fn find_compilers() -> Vec<Compiler> {
    let rustup = [NIGHTLY, "nightly"].into_iter().filter_map(rustup_compiler);
    let paths = std::iter::once(PathBuf::from(DEBIAN)).chain(rustup);
    paths.filter_map(|path| examine(&path)).collect()
}

/// Path of the compiler of one of rustup's toolchains, with or without sources.
fn rustup_compiler(toolchain: &str) -> Option<PathBuf> {
    let output = Command::new("rustup")
        .args(["which", "--toolchain", toolchain, "rustc"])
        .env("RUSTUP_AUTO_INSTALL", "0") // looking is not installing
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// What the compiler at `rustc` is, if it is there and has sources.
fn examine(rustc: &Path) -> Option<Compiler> {
    let sysroot = PathBuf::from(output(rustc, &["--print", "sysroot"]).ok()?.trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists() {
        return None;
    }
    let version = output(rustc, &["-vV"]).ok()?;
    let full = field(&version, "LLVM version")?;
    let llvm = full.split('.').next()?.parse().ok()?;
    let release = field(&version, "release")?;
    let description = format!("rustc {release} with LLVM {llvm} ({})", rustc.display());
    let version = format!("rustc {release} with LLVM {full}");
    Some(Compiler { rustc: rustc.to_owned(), llvm, version, description })
}

/// A bpf-linker for this LLVM: the checkout's own, or cargo's if it was built for it.
pub fn find_linker(llvm: u32) -> Option<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    [Some(workspace::tools()), cargo_home]
        .into_iter()
        .flatten()
        .find(|root| installed_for(root, llvm) && runs(&root.join("bin/bpf-linker")))
        .map(|root| root.join("bin/bpf-linker"))
}

/// Whether cargo's own record of what it installed under `root` has a bpf-linker with the feature
/// for this LLVM.
fn installed_for(root: &Path, llvm: u32) -> bool {
    let Ok(text) = fs::read_to_string(root.join(".crates2.json")) else { return false };
    let Ok(record) = serde_json::from_str::<Value>(&text) else { return false };
    let Some(installs) = record["installs"].as_object() else { return false };
    let wanted = format!("llvm-{llvm}");
    installs
        .iter()
        .filter(|(package, _)| package.starts_with("bpf-linker "))
        .filter_map(|(_, install)| install["features"].as_array())
        .any(|features| features.iter().any(|feature| feature == wanted.as_str()))
}

/// A linker whose shared LLVM has gone does not start.
fn runs(linker: &Path) -> bool {
    Command::new(linker).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// cargo-clippy beside the compiler.
pub fn find_clippy(compiler: &Compiler) -> Option<PathBuf> {
    let path = compiler.rustc.with_file_name("cargo-clippy");
    (path.exists() && compiler.rustc.with_file_name("clippy-driver").exists()).then_some(path)
}

fn field<'a>(version: &'a str, name: &str) -> Option<&'a str> {
    version.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn output(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_version_is_read_from_the_compilers_own_words() {
        let text = "rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(field(text, "LLVM version"), Some("22.1.8"));
        assert_eq!(field(text, "host"), None);
    }

    #[test]
    fn a_linker_for_another_llvm_does_not_count() {
        let root = env::temp_dir().join(format!("medlb-xtask-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let record = r#"{"installs":{"bpf-linker 0.13.0 (x)":{"features":["llvm-22"]},
            "other 1.0.0 (x)":{"features":["llvm-23"]}}}"#;
        fs::write(root.join(".crates2.json"), record).unwrap();
        assert!(installed_for(&root, 22));
        assert!(!installed_for(&root, 23));
        fs::remove_dir_all(&root).unwrap();
    }
}
