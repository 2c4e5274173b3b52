//! Loads the object and prints what the verifier says: `verify OBJECT [debug]`.

use anyhow::Context as _;
use aya::{
    EbpfLoader, VerifierLogLevel,
    programs::{SchedClassifier, Xdp},
};

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).context("usage: verify OBJECT")?;
    let mut loader = EbpfLoader::new();
    let debug = std::env::args().nth(2).is_some();
    let level = if debug { VerifierLogLevel::DEBUG } else { VerifierLogLevel::STATS };
    loader.verifier_log_level(level);
    let mut ebpf = loader.load_file(path)?;
    for name in ["medlb", "medlb_clock"] {
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
    Ok(())
}
