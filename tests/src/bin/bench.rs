//! `cargo xtask bench` runs this: see `tests::bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use tests::bench::{self, Effort};

#[derive(Parser)]
struct Cli {
    /// Shorter slices, and no tables with a million flows
    #[arg(long)]
    quick: bool,
    /// Also writes the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only rows with this text in their name or group
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let effort = if cli.quick { Effort::QUICK } else { Effort::FULL };
    let report = bench::run(effort, cli.only.as_deref())?;
    print!("{report}");
    if let Some(path) = &cli.json {
        let text = serde_json::to_string_pretty(&report.json())? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
