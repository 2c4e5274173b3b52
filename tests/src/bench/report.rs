//! The figures, for people and for programs.

use std::fmt;
use std::fs;

use serde_json::{Value, json};

use super::costs::Costs;
use super::statistics::Summary;
use super::{Effort, Row};

/// All figures of one run.
#[derive(Clone, Debug)]
pub struct Report {
    pub(super) cpu: usize,
    pub(super) effort: Effort,
    pub(super) yardstick: Summary,
    pub(super) rows: Vec<Row>,
    pub(super) costs: Costs,
}

impl Row {
    /// Whether the median keeps the budget.
    pub fn meets(&self) -> Option<bool> {
        self.budget.map(|budget| self.ratio.median <= budget)
    }
}

/// The machine, as it calls itself.
fn machine() -> (String, String) {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (model.unwrap_or("unknown").trim().into(), kernel.trim().into())
}

impl Report {
    /// For programs.
    pub fn json(&self) -> Value {
        let summary = |s: &Summary| json!({"median": s.median, "min": s.min, "max": s.max});
        let (model, kernel) = machine();
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "group": row.group, "name": row.name, "ns": summary(&row.ns),
                    "ratio": summary(&row.ratio), "shim_ns": row.shim_ns,
                    "budget": row.budget, "meets_budget": row.meets(),
                })
            })
            .collect();
        let memory: serde_json::Map<_, _> =
            self.costs.entries.iter().map(|(name, n)| ((*name).into(), json!(n))).collect();
        json!({
            "machine": {"cpu": model, "kernel": kernel, "pinned_to": self.cpu},
            "rounds": self.effort.rounds,
            "yardstick_ns": summary(&self.yardstick),
            "rows": rows,
            "program": {
                "verified_instructions": self.costs.verified,
                "translated_bytes": self.costs.translated,
                "jited_bytes": self.costs.jited,
                "load_ms": self.costs.load_ms,
            },
            "bytes_per_entry": memory,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (model, kernel) = machine();
        let rounds = self.effort.rounds;
        writeln!(f, "{model}, Linux {kernel}, CPU {}; medians of {rounds} rounds", self.cpu)?;
        let y = &self.yardstick;
        writeln!(f, "yardstick (MAC swap): {:.1} ns ({:.1} to {:.1})", y.median, y.min, y.max)?;
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(24);
        let mut group = "";
        for row in &self.rows {
            if row.group != group {
                group = row.group;
                let (ns, least, most) = ("ns", "min", "max");
                writeln!(
                    f,
                    "\n{group:<width$} {ns:>9} {:>7} {least:>7} {most:>7}  budget",
                    "ratio"
                )?;
            }
            let (name, ns, ratio) = (&row.name, row.ns.median, &row.ratio);
            write!(f, "{name:<width$} {ns:>9.1} {:>7.2}", ratio.median)?;
            write!(f, " {:>7.2} {:>7.2}", ratio.min, ratio.max)?;
            match (row.budget, row.meets()) {
                (Some(budget), Some(true)) => writeln!(f, "  {budget:>4.0}× met")?,
                (Some(budget), _) => writeln!(f, "  {budget:>4.0}× MISSED")?,
                _ => writeln!(f)?,
            }
        }
        let c = &self.costs;
        writeln!(
            f,
            "\nprogram: {} instructions verified, {} bytes translated, {} bytes of machine code; \
             loaded with its maps in {:.0} ms",
            c.verified, c.translated, c.jited, c.load_ms
        )?;
        write!(f, "memory of an entry:")?;
        for (name, bytes) in &c.entries {
            write!(f, " {name} {bytes:.1} B;")?;
        }
        writeln!(f, " a DR connection has one, a NAT or SNAT connection two")
    }
}
