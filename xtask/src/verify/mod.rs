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
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::guest::Terms;
use self::scratch::Scratch;
use crate::setup::debian;
use crate::test::cargo_command;
use crate::{bpf_toolchain, ebpf, progress, workspace};

/// Test programs that need the loaded object only, not a network.
const TABLES: &[&str] = &["fixtures", "edges", "full", "half_open", "life", "outbound", "jumbo"];
/// How many machines run at the same time.
const ABREAST: usize = 2;

/// Seconds after which a machine is taken to hang.
const PATIENCE: u64 = 600;

/// Which kernels.
#[derive(Args)]
pub struct Options {
    /// Only these kernels: 6.1, 6.12, newest
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Load and attach only, without the fixture tables
    #[arg(long)]
    quick: bool,
    /// Count the instructions that forwarding one packet takes: medlb, IPVS, nftables and routing
    /// beside each other, on Linux 6.12 unless `--only` names another
    #[arg(long)]
    count: bool,
    /// Seconds after which a machine is taken to hang, and is ended
    #[arg(long, default_value_t = PATIENCE)]
    limit: u64,
}

/// Where everything of this command lies.
fn directory() -> PathBuf {
    workspace::target().join("vm")
}

/// The oldest and the newest kernel: what `cargo xtask test` does.
///
/// # Errors
/// As [`run`].
pub fn oldest_and_newest() -> Result<()> {
    let only = [kernels::NAMES.first(), kernels::NAMES.last()];
    let only = only.into_iter().flatten().map(|name| (*name).to_owned()).collect();
    run(&Options { only, quick: false, count: false, limit: PATIENCE })
}

/// Gets ready, and runs the tables on every kernel.
///
/// # Errors
/// Something is missing, or a kernel refuses the object or fails a fixture.
pub fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    debian::ensure(
        &["qemu-system-x86", "busybox-static", "cpio", "xz-utils", "binutils"].map(Into::into),
    )?;
    ebpf::build(&bpf_toolchain::find_ready()?)?;
    if options.count {
        return count::run(options);
    }
    let programs = programs(if options.quick { &[] } else { TABLES })?;
    let wanted =
        |name: &str| options.only.is_empty() || options.only.iter().any(|only| name == only);
    let kernels = kernels::find_all(wanted)?;
    if kernels.is_empty() {
        bail!("there is no such kernel, only {}", kernels::NAMES.join(", "));
    }
    let scratch = Scratch::new(&directory())?;
    let patience = Duration::from_secs(options.limit);
    let terms = Terms { scratch: scratch.path(), abreast: ABREAST, patience };
    let outcomes = guest::run_all(&kernels, &programs, terms)?;
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

/// The loader, then tables of fixtures: built as `cargo xtask test` builds them, so that nothing is
/// built twice.
fn programs(tables: &[&str]) -> Result<Vec<PathBuf>> {
    let tests: Vec<_> = tables.iter().flat_map(|name| ["--test", name]).collect();
    let arguments = [&["--package", "tests", "--bin", "verify"], &tests[..]].concat();
    let names: Vec<_> = ["verify"].iter().chain(tables).copied().collect();
    build("verify-build", &arguments, &names)
}

/// Builds programs: where each of `names` is.
fn build(log: &str, arguments: &[&str], names: &[&str]) -> Result<Vec<PathBuf>> {
    let mut cargo = cargo_command(&["build"]);
    cargo.args(arguments).args(["--message-format", "json-render-diagnostics"]);
    progress::step(log, "programs for virtual machines", &mut cargo)?;
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
