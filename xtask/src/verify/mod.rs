//! `cargo xtask verify`: the object on other kernels. Each boots in a virtual machine from a Debian
//! package that is unpacked and never installed, loads the object, attaches it to a veth device and
//! runs the fixture tables. `kernels` finds the packages, `image` makes what the machine boots,
//! `guest` runs it, `scratch` takes away what
//! was made. `count` counts instructions instead.

mod count;
mod guest;
mod image;
mod kernels;
mod scratch;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::guest::Terms;
use self::scratch::Scratch;
use crate::setup::debian;
use crate::{bpf_toolchain, ebpf, progress, workspace};

/// Test programs that need the loaded object only, not a network.
const TABLES: &[&str] = &["fixtures", "edges", "full"];
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// How many machines run at the same time.
const ABREAST: usize = 2;

/// Which kernels.
#[derive(Args)]
pub struct Options {
    /// Only this kernel: 6.1, 6.12 or newest
    #[arg(long)]
    only: Option<String>,
    /// Load and attach only, without the fixture tables
    #[arg(long)]
    quick: bool,
    /// Count the instructions that forwarding one packet takes: medlb, IPVS, nftables and routing
    /// beside each other, on Linux 6.12 unless `--only` names another
    #[arg(long)]
    count: bool,
    /// Seconds after which a machine is taken to hang, and is ended
    #[arg(long, default_value_t = 600)]
    limit: u64,
}

/// Where everything of this command lies.
fn directory() -> PathBuf {
    workspace::target().join("vm")
}

/// Gets ready, and runs the tables on every kernel.
///
/// # Errors
/// Something is missing, or a kernel refuses the object or fails a fixture.
pub fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    debian::ensure(&["qemu-system-x86", "busybox-static", "cpio", "xz-utils"].map(Into::into))?;
    ebpf::build(&bpf_toolchain::find_ready()?)?;
    if options.count {
        return count::run(options);
    }
    let programs = programs()?;
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| name == only);
    let mut kernels = kernels::all()?;
    kernels.retain(|kernel| wanted(&kernel.name));
    if kernels.is_empty() {
        bail!("there is no such kernel, only {}", kernels::NAMES.join(", "));
    }
    let programs = if options.quick { &programs[..1] } else { &programs[..] };
    let scratch = Scratch::new(&directory())?;
    let patience = Duration::from_secs(options.limit);
    let terms = Terms { scratch: scratch.path(), abreast: ABREAST, patience };
    let outcomes = guest::run_all(&kernels, programs, terms)?;
    for outcome in &outcomes {
        println!("{outcome}");
    }
    println!("in {:.0} s", started.elapsed().as_secs_f64());
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.passed()).map(|o| o.kernel()).collect();
    if !failed.is_empty() {
        bail!("failed on {}; the consoles are in target/vm/", failed.join(", "));
    }
    Ok(())
}

/// Builds the loader and the fixture tables without shared libraries: the loader first.
fn programs() -> Result<Vec<PathBuf>> {
    let tests: Vec<_> = TABLES.iter().flat_map(|name| ["--test", name]).collect();
    let arguments = [&["--package", "tests", "--bin", "verify"], &tests[..]].concat();
    let names: Vec<_> = ["verify"].iter().chain(TABLES).copied().collect();
    build_static("verify-build", &arguments, &names)
}

/// Builds without shared libraries: where each of `names` is.
fn build_static(log: &str, arguments: &[&str], names: &[&str]) -> Result<Vec<PathBuf>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--target", TARGET])
        .args(arguments)
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", directory().join("cargo"))
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols");
    progress::step(log, "programs without shared libraries", &mut cargo)?;
    let log = workspace::target().join("log").join(log).with_extension("log");
    let log = std::fs::read_to_string(log)?;
    let find = |name: &str| {
        log.lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == name)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .with_context(|| format!("cargo did not say where {name} is"))
    };
    names.iter().map(|name| find(name)).collect()
}
