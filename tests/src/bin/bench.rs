//! `cargo xtask bench` runs this: see `tests::bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use tests::bench::connections::{self, Connections};
use tests::bench::wire::{self, Wire};
use tests::bench::{self, Effort, control};

#[derive(Parser)]
struct Cli {
    /// What to measure; everything when none is named
    parts: Vec<Part>,
    /// Shorter slices, fewer rounds, and no tables with a million flows
    #[arg(long)]
    quick: bool,
    /// Also writes the figures to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Also writes the tables to this file, as a page of documentation
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Of the packets, only rows with this text in their name or group
    #[arg(long)]
    only: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The program alone, packet by packet
    Packets,
    /// Forwarding from end to end, beside nftables and routing
    Wire,
    /// New connections from end to end, beside nftables, routing and HAProxy
    Connections,
    /// What the daemon costs: sweeping, reloading, health checks
    Control,
}

/// Measures one part; quickly, if it is told so.
type Measure = fn(bool) -> Result<bench::Section>;

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
    let wanted = |part: Part| match &cli.only {
        Some(_) => part == Part::Packets,
        None => cli.parts.is_empty() || cli.parts.contains(&part),
    };
    let (model, kernel) = bench::machine();
    let cpus = std::thread::available_parallelism()?;
    let mut page = format!(
        "# Figures\n\nWritten by `cargo xtask bench --markdown FILE` on {model}, {cpus} CPUs, Linux \
         {kernel}. What they mean: [performance.md](performance.md).\n"
    );
    let mut figures = json!({});
    if wanted(Part::Packets) {
        let effort = if cli.quick { Effort::QUICK } else { Effort::FULL };
        let report = bench::run(effort, cli.only.as_deref())?;
        print!("{report}");
        page += &format!("\n{}", report.markdown());
        figures = report.json();
    }
    let parts: [(Part, &str, Measure); 3] = [
        (Part::Wire, "wire", measure_wire),
        (Part::Connections, "connections", measure_connections),
        (Part::Control, "control", control::run),
    ];
    for (part, name, measure) in parts {
        if wanted(part) {
            let section = measure(cli.quick)?;
            print!("{section}");
            page += &format!("\n{}", section.markdown());
            figures[name] = section.figures;
        }
    }
    write(cli, &page, &figures)
}

fn write(cli: &Cli, page: &str, figures: &Value) -> Result<()> {
    if let Some(path) = &cli.json {
        let text = serde_json::to_string_pretty(figures)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &cli.markdown {
        std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn measure_wire(quick: bool) -> Result<bench::Section> {
    bench::pin()?;
    wire::run(if quick { Wire::QUICK } else { Wire::FULL })
}

fn measure_connections(quick: bool) -> Result<bench::Section> {
    connections::run(if quick { Connections::QUICK } else { Connections::FULL })
}
