//! Loads the object, prints what the verifier says of it, and attaches it if asked to.

use std::path::PathBuf;

use anyhow::Context as _;
use aya::programs::xdp::XdpMode;
use aya::programs::{SchedClassifier, Xdp};
use aya::{EbpfLoader, VerifierLogLevel};
use clap::Parser;

#[derive(Parser)]
struct Cli {
    /// The object
    object: PathBuf,
    /// Attaches to this interface, by the driver and then generically, and detaches
    #[arg(long)]
    attach: Option<String>,
    /// Has the verifier tell all
    #[arg(long)]
    debug: bool,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let mut loader = EbpfLoader::new();
    let level = if cli.debug { VerifierLogLevel::DEBUG } else { VerifierLogLevel::STATS };
    loader.verifier_log_level(level);
    loader.override_global("AYA_LOG_LEVEL", &0u8, false);
    let mut ebpf = loader.load_file(&cli.object)?;
    for name in ["medlb", "medlb_linear", "medlb_clock"] {
        let program: &mut Xdp = ebpf.program_mut(name).context("no such program")?.try_into()?;
        program.load()?;
        let info = program.info()?;
        println!(
            "{name}: {} verified instructions, {} bytes translated, {} bytes jited",
            info.verified_instruction_count().unwrap_or(0),
            info.size_translated().unwrap_or(0),
            info.size_jitted()
        );
    }
    let check: &mut SchedClassifier =
        ebpf.program_mut("medlb_check").context("no such program")?.try_into()?;
    check.load()?;
    let count = check.info()?.verified_instruction_count().unwrap_or(0);
    println!("medlb_check: {count} verified instructions");
    if let Some(interface) = &cli.attach {
        let program: &mut Xdp = ebpf.program_mut("medlb").context("no such program")?.try_into()?;
        for (mode, name) in [(XdpMode::Driver, "natively"), (XdpMode::Skb, "generically")] {
            let link = program
                .attach(interface, mode)
                .with_context(|| format!("cannot attach {name} to {interface}"))?;
            println!("attached {name}");
            program.detach(link)?;
        }
    }
    Ok(())
}
