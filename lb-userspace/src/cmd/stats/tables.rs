//! The tables of `stats`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::model::{Stats, Traffic};
use crate::cmd::ui::{self, BOLD, Cell, DIM, Paint, Table};

/// Counters since the data plane was loaded.
pub fn totals(stats: &Stats, paint: Paint) -> String {
    let mut table = Table::new(&[
        "SERVICE / REAL SERVER",
        ">PACKETS IN",
        ">BYTES IN",
        ">PACKETS OUT",
        ">BYTES OUT",
        ">CONNECTIONS",
        ">ACTIVE",
    ]);
    let cells = |label: Cell, t: &Traffic| {
        [
            label,
            ui::count(t.packets_in).into(),
            ui::bytes(t.bytes_in).into(),
            ui::count(t.packets_out).into(),
            ui::bytes(t.bytes_out).into(),
            ui::count(t.connections_total).into(),
            ui::count(t.active_connections).into(),
        ]
    };
    for service in &stats.services {
        table.row(cells(Cell::styled(service.label.as_str(), BOLD), &service.traffic));
        for real in &service.real_servers {
            table.row(cells(format!("  {}", real.label).into(), &real.traffic));
        }
    }
    let mut out = table.render(paint);
    out.push_str(&drops(stats, None, paint));
    out.push_str(&fill(stats, paint));
    out
}

/// What happened between two looks, per second.
pub fn rates(before: &Stats, now: &Stats, span: Duration, paint: Paint) -> String {
    let mut table = Table::new(&[
        "SERVICE / REAL SERVER",
        ">PKT/S IN",
        ">BIT/S IN",
        ">PKT/S OUT",
        ">BIT/S OUT",
        ">CONN/S",
        ">ACTIVE",
        ">CONNECTIONS",
    ]);
    let none = Traffic::default();
    for service in &now.services {
        let old = before.services.iter().find(|old| old.label == service.label);
        let was = old.map_or(&service.traffic, |old| &old.traffic);
        let label = Cell::styled(service.label.as_str(), BOLD);
        table.row(rate_cells(label, was, &service.traffic, span));
        for real in &service.real_servers {
            let was = old
                .and_then(|old| old.real_servers.iter().find(|old| old.label == real.label))
                .map_or(if old.is_some() { &none } else { &real.traffic }, |old| &old.traffic);
            let label = format!("  {}", real.label).into();
            table.row(rate_cells(label, was, &real.traffic, span));
        }
    }
    let mut out = table.render(paint);
    out.push_str(&drops(now, Some((before, span)), paint));
    out.push_str(&fill(now, paint));
    out
}

fn rate_cells(label: Cell, was: &Traffic, now: &Traffic, span: Duration) -> [Cell; 8] {
    let rate = |was: u64, now: u64| per_second(was, now, span);
    [
        label,
        ui::rate(rate(was.packets_in, now.packets_in)).into(),
        ui::rate(rate(was.bytes_in, now.bytes_in) * 8.0).into(),
        ui::rate(rate(was.packets_out, now.packets_out)).into(),
        ui::rate(rate(was.bytes_out, now.bytes_out) * 8.0).into(),
        ui::rate(rate(was.connections_total, now.connections_total)).into(),
        ui::count(now.active_connections).into(),
        ui::count(now.connections_total).into(),
    ]
}

/// Counters only grow; one that shrank began anew.
fn per_second(was: u64, now: u64, span: Duration) -> f64 {
    let grown = now.checked_sub(was).unwrap_or(now);
    grown as f64 / span.as_secs_f64().max(0.001)
}

/// Verdicts that occurred, for all and by service.
fn drops(stats: &Stats, before: Option<(&Stats, Duration)>, paint: Paint) -> String {
    let heading: &[&'static str] = match before {
        None => &["VERDICT", ">PACKETS", "SERVICES"],
        Some(_) => &["VERDICT", ">PACKETS", ">PKT/S", "SERVICES"],
    };
    let mut table = Table::new(heading);
    for (name, packets) in stats.verdicts.iter().filter(|(_, packets)| **packets > 0) {
        let by: Vec<_> = stats
            .services
            .iter()
            .filter_map(|service| match service.drops.get(name) {
                Some(&n) if n > 0 => Some(format!("{} {}", service.label, ui::count(n))),
                _ => None,
            })
            .collect();
        let mut row = vec![name.as_str().into(), ui::count(*packets).into()];
        if let Some((before, span)) = before {
            let was = before.verdicts.get(name).copied().unwrap_or(0);
            row.push(ui::rate(per_second(was, *packets, span)).into());
        }
        row.push(Cell::styled(by.join(", "), DIM));
        table.row(row);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render(paint)) }
}

fn fill(stats: &Stats, paint: Paint) -> String {
    let mut table = Table::new(&["TABLE", ">ENTRIES", ">CAPACITY", ">FULL"]);
    let tables: &BTreeMap<_, _> = &stats.tables;
    for (name, t) in tables {
        let percent =
            if t.capacity == 0 { 0.0 } else { t.entries as f64 * 100.0 / t.capacity as f64 };
        let style = match percent {
            90.0.. => ui::RED,
            70.0.. => ui::YELLOW,
            _ => anstyle::Style::new(),
        };
        table.row([
            name.as_str().into(),
            ui::count(t.entries).into(),
            ui::count(t.capacity).into(),
            Cell::styled(format!("{percent:.0} %"), style),
        ]);
    }
    if table.is_empty() { String::new() } else { format!("\n{}", table.render(paint)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::{RealServerStats, ServiceStats, TableStats};

    fn stats(packets: u64) -> Stats {
        let traffic =
            Traffic { packets_in: packets, bytes_in: packets * 100, ..Traffic::default() };
        Stats {
            services: vec![ServiceStats {
                label: "S".into(),
                traffic,
                drops: [("no_usable_server".to_owned(), 3)].into(),
                real_servers: vec![RealServerStats { label: "R".into(), traffic }],
            }],
            verdicts: [("not_ours".to_owned(), 0), ("no_usable_server".to_owned(), 3)].into(),
            tables: [("flows_v4".to_owned(), TableStats { entries: 9, capacity: 10 })].into(),
        }
    }

    #[test]
    fn totals_show_traffic_the_verdicts_that_occurred_and_how_full_tables_are() {
        let text = totals(&stats(20_000), Paint::plain());
        assert!(text.contains("20'000"), "{text}");
        assert!(text.contains("S 3"), "{text}");
        assert!(!text.contains("not_ours"), "{text}");
        assert!(text.contains("90 %"), "{text}");
    }

    #[test]
    fn rates_are_differences_per_second() {
        let text = rates(&stats(1000), &stats(3000), Duration::from_secs(2), Paint::plain());
        let line = text.lines().find(|line| line.starts_with("  R")).unwrap();
        let cells: Vec<_> = line.split_whitespace().collect();
        assert_eq!(cells[..3], ["R", "1000", "800'000"]);
    }

    #[test]
    fn a_counter_that_began_anew_gives_no_absurd_rate() {
        assert_eq!(per_second(1000, 50, Duration::from_secs(1)), 50.0);
        assert_eq!(per_second(5, 5, Duration::ZERO), 0.0);
    }
}
