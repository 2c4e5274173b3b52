//! Builds lb-ebpf for the BPF target and puts its objects where the others look for them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use aya_obj::Object;
use aya_obj::ProgramSection;
use aya_obj::programs::XdpAttachType;

use crate::bpf_toolchain::Toolchain;
use crate::{progress, workspace};

const TARGET: &str = "bpfel-unknown-none";

/// Builds every binary of lb-ebpf and copies each to `target/bpf/NAME.bpf.o`, untouched when its
/// bytes are the same, so that cargo rebuilds `medlb` only when it must. `target/bpf/compiler.txt`
/// says what built them.
///
/// # Errors
/// The compiler or the linker fails, or the object is not one that aya can read.
pub fn build(toolchain: &Toolchain) -> Result<()> {
    let mut command = cargo(toolchain);
    command.args(["build", "--bins", "--release", "--target", TARGET, "-Zbuild-std=core"]);
    let what = format!("eBPF objects, with {}", toolchain.compiler.description);
    progress::step("build-ebpf", &what, &mut command)?;
    let built = workspace::root().join("lb-ebpf/target").join(TARGET).join("release");
    fs::create_dir_all(workspace::bpf_objects())?;
    for name in binaries()? {
        let bytes = fs::read(built.join(&name)).with_context(|| format!("lb-ebpf's {name}"))?;
        let path = workspace::bpf_objects().join(format!("{name}.bpf.o"));
        let changed = fs::read(&path).ok().as_deref() != Some(&bytes);
        if changed {
            fs::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        describe(&path, &bytes, changed)?;
    }
    // For tests/tests/gate.rs: another compiler makes other instructions.
    let path = workspace::bpf_objects().join("compiler.txt");
    fs::write(&path, toolchain.identity()? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Clippy on lb-ebpf for the BPF target, with warnings denied.
///
/// # Errors
/// Clippy is missing or has something to say.
pub fn lint(toolchain: &Toolchain) -> Result<()> {
    let Some(clippy) = &toolchain.clippy else {
        bail!("no clippy for {}: run `cargo xtask setup`", toolchain.compiler.description)
    };
    let mut command = Command::new(clippy);
    command.args(["clippy", "--bins", "--release", "--target", TARGET, "-Zbuild-std=core"]);
    configure(&mut command, toolchain);
    command.env("CARGO", cargo_path(&toolchain.compiler.rustc));
    command.args(["--", "-D", "warnings"]);
    let status = command.status().context("cannot run cargo-clippy")?;
    if !status.success() {
        bail!("clippy on lb-ebpf failed");
    }
    Ok(())
}

fn cargo(toolchain: &Toolchain) -> Command {
    let mut command = Command::new(cargo_path(&toolchain.compiler.rustc));
    configure(&mut command, toolchain);
    command
}

/// rustup's toolchains bring a cargo that fits; Debian's /usr/bin/cargo can be years older than its
/// rustc-web, so there the cargo that runs us does the work.
fn cargo_path(rustc: &Path) -> PathBuf {
    let beside = rustc.with_file_name("cargo");
    if beside.exists() && !rustc.starts_with("/usr/bin") {
        return beside;
    }
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

fn configure(command: &mut Command, toolchain: &Toolchain) {
    let linker = format!("-Clinker={}", toolchain.linker.display());
    let flags = [linker.as_str(), "-Cdebuginfo=2", "-Clink-arg=--btf"].join("\u{1f}");
    command
        .current_dir(workspace::root().join("lb-ebpf"))
        .env("RUSTC", &toolchain.compiler.rustc)
        // -Zbuild-std is an unstable flag; the BPF target has no prebuilt core.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
}

/// Names of lb-ebpf's binaries, as cargo knows them.
fn binaries() -> Result<Vec<String>> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline", "--manifest-path"])
        .arg(workspace::root().join("lb-ebpf/Cargo.toml"))
        .output()
        .context("cannot run `cargo metadata`")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let targets = metadata["packages"][0]["targets"].as_array().context("no targets in lb-ebpf")?;
    let is_bin = |target: &&serde_json::Value| target["kind"][0] == "bin";
    Ok(targets.iter().filter(is_bin).filter_map(|t| t["name"].as_str()).map(Into::into).collect())
}

/// Prints the object's size and what a loader finds in it.
fn describe(path: &Path, bytes: &[u8], changed: bool) -> Result<()> {
    let object = Object::parse(bytes)
        .with_context(|| format!("{} is not an object that aya can load", path.display()))?;
    let mut programs: Vec<String> = object
        .programs
        .iter()
        .map(|(name, program)| format!("{name} ({})", section(&program.section)))
        .collect();
    programs.sort();
    let shown = path.strip_prefix(workspace::root()).unwrap_or(path).display();
    let state = if changed { "" } else { ", unchanged" };
    eprintln!("  {shown}: {} bytes{state}; programs: {}", bytes.len(), programs.join(", "));
    Ok(())
}

fn section(section: &ProgramSection) -> String {
    match section {
        ProgramSection::Xdp { frags, attach_type } => {
            let map = match attach_type {
                XdpAttachType::Interface => "",
                XdpAttachType::CpuMap => "/cpumap",
                XdpAttachType::DevMap => "/devmap",
            };
            format!("xdp{}{map}", if *frags { ".frags" } else { "" })
        }
        other => format!("{other:?}").to_lowercase(),
    }
}
