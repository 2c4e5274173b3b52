//! The figures, for people and for programs.

use std::fmt;
use std::fs;

use serde_json::{Value, json};

use super::costs::Costs;
use super::statistics::Summary;
use super::table::Table;
use super::{Effort, Row};

/// Figures that belong together.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// How they were measured.
    pub note: String,
    /// For people.
    pub tables: Vec<Table>,
    /// For programs.
    pub figures: Value,
}

impl Section {
    /// As Markdown, under a heading of the second level.
    pub fn markdown(&self) -> String {
        let tables: Vec<_> = self.tables.iter().map(Table::markdown).collect();
        format!("## {}\n\n{}\n\n{}", self.title, self.note, tables.join("\n"))
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}\n{}", self.title, self.note)?;
        self.tables.iter().try_for_each(|table| write!(f, "\n{table}"))
    }
}

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
pub fn machine() -> (String, String) {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (model.unwrap_or("unknown").trim().into(), kernel.trim().into())
}

impl Report {
    /// For programs.
    pub fn json(&self) -> Value {
        let (model, kernel) = machine();
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "group": row.group, "name": row.name, "ns": row.ns.json(),
                    "ratio": row.ratio.json(), "shim_ns": row.shim_ns,
                    "budget": row.budget, "meets_budget": row.meets(),
                })
            })
            .collect();
        let memory: serde_json::Map<_, _> =
            self.costs.entries.iter().map(|(name, n)| ((*name).into(), json!(n))).collect();
        json!({
            "machine": {"cpu": model, "kernel": kernel, "pinned_to": self.cpu},
            "rounds": self.effort.rounds,
            "yardstick_ns": self.yardstick.json(),
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

impl Report {
    /// For a page of documentation, under a heading of the second level.
    pub fn markdown(&self) -> String {
        let y = &self.yardstick;
        let mut text = format!(
            "## The program alone\n\nNanoseconds a packet by PROG_TEST_RUN, medians of {} rounds; ratios \
             are to the yardstick, which took {:.1} ns ({:.1} to {:.1}).\n",
            self.effort.rounds, y.median, y.min, y.max
        );
        let mut rows = self.rows.iter().peekable();
        while let Some(first) = rows.peek() {
            let group = first.group;
            let mut table = Table::new(group, &["ns", "ratio", "min", "max", "budget"]);
            while let Some(row) = rows.next_if(|row| row.group == group) {
                let ratio = |value: f64| format!("{value:.2}");
                let budget = row.budget.zip(row.meets()).map_or(String::new(), |(most, met)| {
                    format!("≤ {most}: {}", if met { "met" } else { "missed" })
                });
                let (ns, r) = (format!("{:.1}", row.ns.median), &row.ratio);
                table.row(&row.name, vec![ns, ratio(r.median), ratio(r.min), ratio(r.max), budget]);
            }
            text += "\n";
            text += &table.markdown();
        }
        let c = &self.costs;
        let mut table = Table::new("paid once", &["", "budget"]);
        let mut add = |name: &str, value: String| table.row(name, vec![value, String::new()]);
        add("instructions verified, of 1,000,000", c.verified.to_string());
        add("machine code, bytes", c.jited.to_string());
        add("loading, with tables for 2^20 entries, ms", format!("{:.0}", c.load_ms));
        for (name, bytes) in &c.entries {
            let kind = name.to_lowercase().replace('_', " ");
            let both = format!("{} B", 2.0 * bytes);
            let (one, two) = match *name {
                "TCP_V4" => ("≤ 128", "≤ 256"),
                _ => ("", ""),
            };
            let met = |limit: &str, value: f64, most: f64| match limit {
                "" => String::new(),
                _ => format!("{limit}: {}", if value <= most { "met" } else { "missed" }),
            };
            let own = format!("{bytes:.0} B");
            table.row(&format!("memory, {kind}, DR"), vec![own, met(one, *bytes, 128.0)]);
            table.row(&format!("{kind}, NAT or SNAT"), vec![both, met(two, 2.0 * bytes, 256.0)]);
        }
        text + "\n" + &table.markdown()
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
