//! New TCP connections, each with one small request, from end to end: through medlb, through what
//! would be used instead, and directly.

mod place;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use place::{Contender, Place};

use super::report::Section;
use super::statistics::Summary;
use super::table::Table;

/// Clients at once, when it is about how many connections there are.
const MANY: usize = 16;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// How many times all contenders are measured.
    pub rounds: usize,
    /// One measurement, in milliseconds; there are two for each contender and round.
    pub slice_ms: u64,
}

impl Connections {
    /// For figures that are to be quoted.
    pub const FULL: Self = Self { rounds: 7, slice_ms: 800 };
    /// For a look at what a change has done.
    pub const QUICK: Self = Self { rounds: 3, slice_ms: 300 };
}

/// One contender's figures, round by round.
struct Row {
    contender: Contender,
    /// Connections a second.
    rate: Vec<f64>,
    /// CPU time of a connection, both ends included, in microseconds.
    cpu: Vec<f64>,
    /// Microseconds of a connection, one at a time: three quantiles.
    latency: [Vec<f64>; 3],
    /// Connections attempted, and how many of them failed, warming up included.
    all: f64,
    failed: f64,
}

/// Beyond this part of them, failures are not noise but an error.
const MOST_FAILED: f64 = 0.001;

const QUANTILES: [&str; 3] = ["p50_us", "p99_us", "p999_us"];

/// Measures everything.
///
/// # Errors
/// Not root, something is not built or installed, or a connection fails.
pub fn run(effort: Connections) -> Result<Section> {
    let mut places = Vec::new();
    for contender in Contender::ALL {
        if !contender.installed() {
            eprintln!("bench: left out, because it is not installed: {}", contender.name());
            continue;
        }
        eprintln!("bench: connections, setting up {}", contender.name());
        let place = Place::build(contender);
        places.push(place.with_context(|| format!("setting up {}", contender.name()))?);
    }
    let row = |place: &Place| Row {
        contender: place.contender,
        rate: Vec::new(),
        cpu: Vec::new(),
        latency: Default::default(),
        all: 0.0,
        failed: 0.0,
    };
    let mut rows: Vec<_> = places.iter().map(row).collect();
    let length = Duration::from_millis(effort.slice_ms);
    for round in 0..=effort.rounds {
        eprintln!("bench: connections, round {round} of {}", effort.rounds);
        for (place, row) in places.iter_mut().zip(&mut rows) {
            let measured = measure(place, row, length, round > 0);
            measured.with_context(|| row.contender.name().to_owned())?;
        }
    }
    for place in &places {
        place.check()?;
    }
    Ok(section(effort, &rows))
}

/// One round of one contender; the first warms up and is not kept.
fn measure(place: &mut Place, row: &mut Row, length: Duration, keep: bool) -> Result<()> {
    let before = place.spent()?;
    let many = place.ask(MANY, length)?;
    let behind = (place.spent()? - before).as_secs_f64();
    let one = place.ask(1, length)?;
    for report in [&many, &one] {
        let (done, failed) = (number(report, "done")?, number(report, "failed")?);
        row.all += done + failed;
        row.failed += failed;
        if failed > 0.0 {
            let name = row.contender.name();
            eprintln!("bench: {name}: {failed} failed, {}{}", report["error"], place.verdicts());
        }
        ensure!(failed <= done * MOST_FAILED, "too many failed: {report}");
    }
    if keep {
        let done = number(&many, "done")?;
        row.rate.push(done / number(&many, "seconds")?);
        row.cpu.push((number(&many, "cpu_seconds")? + behind) / done * 1e6);
        for (kept, name) in row.latency.iter_mut().zip(QUANTILES) {
            kept.push(number(&one, name)?);
        }
    }
    Ok(())
}

fn number(report: &Value, name: &str) -> Result<f64> {
    report[name].as_f64().with_context(|| format!("no {name} in {report}"))
}

fn section(effort: Connections, rows: &[Row]) -> Section {
    let dnat = rows.iter().find(|row| row.contender == Contender::Dnat).expect("it is measured");
    let mut rates = Table::new(
        "16 clients at once",
        &["connections/s", "min", "max", "of nftables DNAT", "CPU µs a connection", "failed"],
    );
    let mut latency = Table::new(
        "one client, µs for connect, request, answer, close",
        &["p50", "p99", "p99.9", "p50: min", "max"],
    );
    let mut figures = Vec::new();
    for row in rows {
        let (rate, cpu) = (Summary::of(&row.rate), Summary::of(&row.cpu));
        let pairs = row.rate.iter().zip(&dnat.rate).map(|(a, b)| a / b);
        let ratio = Summary::of(&pairs.collect::<Vec<_>>());
        let whole = |value: f64| format!("{value:.0}");
        rates.row(
            row.contender.name(),
            vec![
                whole(rate.median),
                whole(rate.min),
                whole(rate.max),
                format!("{:.2}", ratio.median),
                whole(cpu.median),
                format!("{} of {}", row.failed, row.all),
            ],
        );
        let quantiles = row.latency.each_ref().map(|values| Summary::of(values));
        let mut cells: Vec<_> = quantiles.iter().map(|q| whole(q.median)).collect();
        cells.extend([whole(quantiles[0].min), whole(quantiles[0].max)]);
        latency.row(row.contender.name(), cells);
        let named: serde_json::Map<_, _> =
            QUANTILES.iter().zip(&quantiles).map(|(n, q)| ((*n).into(), q.json())).collect();
        figures.push(json!({
            "contender": row.contender.name(), "rate": rate.json(), "of_nftables_dnat": ratio.json(),
            "cpu_us": cpu.json(), "failed": row.failed, "connections": row.all, "latency": named,
        }));
    }
    let note = format!(
        "One request and one answer of 64 bytes on a connection of its own; the same client and server \
         program for all. Client and server share the machine's CPUs with what forwards, and take most \
         of them: CPU time is that of client, server and HAProxy, with the kernel's work in their time \
         and in its own threads (`ksoftirqd`). Medians of {} rounds in which all take turns.",
        effort.rounds
    );
    let title = "End to end: new connections";
    Section { title, note, tables: vec![rates, latency], figures: figures.into() }
}
