//! Forwarding of small packets from end to end: the same frames, over the same cables, through medlb
//! and through what would be used instead.

mod contender;
mod frame;
mod rig;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use contender::Contender;
use rig::Rig;

use super::report::Section;
use super::scenes::digits;
use super::statistics::Summary;
use super::table::Table;

/// How many flows: few enough for the first-level cache, and more than fit into any but the last.
const FLOWS: [u32; 2] = [512, 60_000];
/// Room for both directions of all flows.
const ROOM: u32 = 1 << 18;
/// Fewer must not get lost: what is compared is what arrives, but for the same load.
const ARRIVED: f64 = 0.99;

/// How often a slice of which something was lost is measured again.
const TRIES: usize = 8;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    /// How many times all contenders are measured.
    pub rounds: usize,
    /// One measurement, in milliseconds.
    pub slice_ms: u64,
}

impl Wire {
    /// For figures that are to be quoted.
    pub const FULL: Self = Self { rounds: 7, slice_ms: 200 };
    /// For a look at what a change has done.
    pub const QUICK: Self = Self { rounds: 3, slice_ms: 60 };
}

/// One contender's figures.
struct Row {
    contender: Contender,
    /// Packets a second, for each of `FLOWS`, round by round.
    rates: [Vec<f64>; 2],
}

impl Row {
    fn median(&self, which: usize) -> f64 {
        Summary::of(&self.rates[which]).median
    }

    /// Round by round, as a ratio to another's.
    fn against(&self, other: &Self, which: usize) -> Summary {
        let pairs = self.rates[which].iter().zip(&other.rates[which]);
        Summary::of(&pairs.map(|(a, b)| a / b).collect::<Vec<_>>())
    }
}

/// Measures everything, on the CPU that the caller is pinned to.
///
/// # Errors
/// Not root, no objects, or packets do not arrive.
pub fn run(effort: Wire) -> Result<Section> {
    let mut rigs = Vec::new();
    for contender in Contender::ALL {
        eprintln!("bench: wire, setting up {}", contender.name());
        let set_up = || -> Result<Rig> {
            let mut rig = Rig::build(contender, ROOM)?;
            rig.open(FLOWS[1])?;
            Ok(rig)
        };
        rigs.push(set_up().with_context(|| format!("setting up {}", contender.name()))?);
    }
    let row = |rig: &Rig| Row { contender: rig.contender, rates: Default::default() };
    let mut rows: Vec<_> = rigs.iter().map(row).collect();
    let length = Duration::from_millis(effort.slice_ms);
    for round in 0..=effort.rounds {
        eprintln!("bench: wire, round {round} of {}", effort.rounds);
        for (rig, row) in rigs.iter_mut().zip(&mut rows) {
            for (flows, rates) in FLOWS.into_iter().zip(&mut row.rates) {
                let rate = whole(rig, flows, length)?;
                if round > 0 {
                    rates.push(rate); // the first round warms up
                }
            }
        }
    }
    Ok(section(effort, &rows))
}

/// A slice of which nothing got lost. Something may when others keep the CPU so busy that the kernel
/// puts off its work; such a slice is measured again.
fn whole(rig: &mut Rig, flows: u32, length: Duration) -> Result<f64> {
    let mut worst: f64 = 1.0;
    for _ in 0..TRIES {
        let slice = rig.slice(flows, length)?;
        if slice.arrived > ARRIVED {
            return Ok(slice.rate);
        }
        worst = worst.min(slice.arrived);
    }
    let name = rig.contender.name();
    bail!(
        "{name}, {flows} flows: {TRIES} times some were lost, once all but {:.2} %",
        worst * 100.0
    )
}

/// A medlb in DR mode with this many established connections, and room for them.
pub(super) fn filled(flows: u32) -> Result<Rig> {
    let room = flows.next_power_of_two();
    let mut rig = Rig::build(Contender::Medlb(crate::lab::Method::Dr), room)?;
    rig.open(flows)?;
    Ok(rig)
}

/// Whether packets get through at all: in a test, so that the benchmark keeps working.
///
/// # Errors
/// They do not.
pub fn works(flows: u32) -> Result<()> {
    let medlb = Contender::Medlb(crate::lab::Method::Nat);
    for contender in [Contender::Bare, medlb, Contender::Routing] {
        let mut rig = Rig::build(contender, ROOM)?;
        rig.open(flows)?;
        let slice = rig.slice(flows, Duration::from_millis(1))?;
        // How many, a busy machine decides.
        ensure!(slice.arrived > 0.0, "{}: nothing arrived", contender.name());
        if let Some(medlb) = &rig.medlb {
            let stats = medlb.stats()?;
            let active = &stats["services"][0]["active_connections"];
            ensure!(*active == flows, "{active} connections of {flows}");
        }
    }
    Ok(())
}

fn find(rows: &[Row], contender: Contender) -> &Row {
    rows.iter().find(|row| row.contender == contender).expect("all contenders are measured")
}

fn section(effort: Wire, rows: &[Row]) -> Section {
    let (drop, dnat) = (find(rows, Contender::Drop), find(rows, Contender::Dnat));
    let mut tables = Vec::new();
    let mut figures = Vec::new();
    for (which, flows) in FLOWS.into_iter().enumerate() {
        let title = format!("forwarding, {} flows", digits(flows));
        let head = ["Mpps", "min", "max", "of XDP_DROP", "of nftables DNAT", "aim"];
        let mut table = Table::new(&title, &head);
        for row in rows {
            let rate = Summary::of(&row.rates[which]);
            let (of_drop, of_dnat) = (row.against(drop, which), row.against(dnat, which));
            let aim = row.contender.aim().map_or(String::new(), |aim| {
                let met = if of_drop.median >= aim { "met" } else { "missed" };
                format!("≥ {aim:.2}: {met}")
            });
            let mega = |value: f64| format!("{:.2}", value / 1e6);
            table.row(
                row.contender.name(),
                vec![
                    mega(rate.median),
                    mega(rate.min),
                    mega(rate.max),
                    format!("{:.2}", of_drop.median),
                    format!("{:.2}", of_dnat.median),
                    aim,
                ],
            );
            figures.push(json!({
                "contender": row.contender.name(), "flows": flows, "pps": rate.json(),
                "of_drop": of_drop.json(), "of_nftables_dnat": of_dnat.json(),
            }));
        }
        tables.push(table);
    }
    tables.push(loss(rows));
    let note = format!(
        "Frames of 60 bytes over veth; one CPU writes, forwards and counts them. Medians of {} rounds \
         in which all contenders take turns; ratios are taken within a round. The CPU's time for \
         writing a frame is in every figure.",
        effort.rounds
    );
    Section {
        title: "End to end: forwarding of small packets",
        note,
        tables,
        figures: figures.into(),
    }
}

/// What many flows cost, beside few.
fn loss(rows: &[Row]) -> Table {
    let head = ["slower by", "ns a packet beyond XDP_DROP, 512", "60,000", "aim"];
    let mut table = Table::new("60,000 flows beside 512", &head);
    let drop = find(rows, Contender::Drop);
    for row in rows {
        let slower = 1.0 - row.median(1) / row.median(0);
        let beyond =
            |which: usize| format!("{:.0}", 1e9 / row.median(which) - 1e9 / drop.median(which));
        let aim = match row.contender {
            Contender::Medlb(_) if slower <= 0.25 => "≤ 25 %: met",
            Contender::Medlb(_) => "≤ 25 %: missed",
            _ => "",
        };
        let slower = format!("{:.0} %", slower * 100.0);
        table.row(row.contender.name(), vec![slower, beyond(0), beyond(1), aim.into()]);
    }
    table
}
