//! `cargo xtask`: set up, build the eBPF object, demonstrate, test. One file for each command.

mod bench;
mod bpf_toolchain;
mod demo;
mod ebpf;
mod progress;
mod setup;
mod test;
mod verify;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, tests and demonstrates medlb.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what building, testing and the demo need (does nothing when all is there)
    Setup,
    /// Build the eBPF object that `medlb` embeds, into target/bpf/
    BuildEbpf {
        /// Accepted for symmetry: the object is always built optimised, the verifier wants it so
        #[arg(long)]
        release: bool,
    },
    /// Run clippy on the eBPF crate, with warnings denied
    LintEbpf,
    /// Real DICOM traffic through DR, NAT and SNAT, and a server that dies (root)
    Demo {
        /// Only these modes (dr, nat, snat)
        #[arg(long, value_delimiter = ',')]
        modes: Vec<demo::ModeName>,
        /// Keep captures of both sides of medlb under target/demo/ (needs tcpdump)
        #[arg(long)]
        capture: bool,
    },
    /// What a packet costs on this machine, beside a program that only swaps MAC addresses (root)
    Bench(bench::Options),
    /// Load, attach and run the fixtures on other kernels, in virtual machines
    Verify(verify::Options),
    /// All tests: on the host, on the loaded program, in network namespaces (root)
    Test {
        /// Handed to each test program: a filter, --nocapture, …
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Setup => setup::run(),
        Command::BuildEbpf { release: _ } => {
            let toolchain = bpf_toolchain::find_ready()?;
            ebpf::build(&toolchain)
        }
        Command::LintEbpf => {
            let toolchain = bpf_toolchain::find_ready()?;
            ebpf::lint(&toolchain)
        }
        Command::Demo { modes, capture } => demo::run(&modes, capture),
        Command::Bench(options) => bench::run(&options),
        Command::Verify(options) => verify::run(&options),
        Command::Test { arguments } => test::run(&arguments),
    }
}
