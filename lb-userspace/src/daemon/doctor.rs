//! What `doctor` finds in a configuration, and in a running daemon.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use super::rotation::Effective;
use super::seams::{Inputs, Snapshot};
use super::view;
use crate::api::model::{Finding, Interface, Level};
use crate::config::model::{Config, ForwardingMethod};

/// Above this a table is worth a look, in percent.
const FULL_WARN: u64 = 70;
/// Above this connections will soon be refused, in percent.
const FULL_FAIL: u64 = 90;

/// What the configuration asks of this host. Needs no daemon.
pub fn of_host(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        config.interfaces.iter().map(|interface| device(&interface.name)).collect();
    let snat = config.services.iter().any(|s| s.forwarding_method == ForwardingMethod::Snat)
        || !config.outbound_snat.is_empty();
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    if let Some(local) = port_range(&range)
        && snat
    {
        findings.push(snat_ports(&config.global.snat_ports, &local));
    }
    findings
}

fn device(name: &str) -> Finding {
    let subject = format!("interface {name}");
    let base = Path::new("/sys/class/net").join(name);
    if !base.exists() {
        let advice = "correct `interfaces` in the configuration; `ip link` lists what there is";
        return Finding::bad(Level::Fail, subject, "does not exist", advice);
    }
    match fs::read_to_string(base.join("carrier")).as_deref().map(str::trim) {
        Ok("1") => Finding::ok(subject, "has carrier"),
        Ok(_) => {
            Finding::bad(Level::Fail, subject, "has no carrier", "check cable and switch port")
        }
        // An interface that is down refuses to be asked.
        Err(_) => {
            Finding::bad(Level::Fail, subject, "is down", format!("`ip link set dev {name} up`"))
        }
    }
}

/// The two numbers of `net.ipv4.ip_local_port_range`.
fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

fn snat_ports(snat: &RangeInclusive<u16>, local: &RangeInclusive<u16>) -> Finding {
    let (a, b) =
        (format!("{}-{}", snat.start(), snat.end()), format!("{}-{}", local.start(), local.end()));
    if snat.end() < local.start() || local.end() < snat.start() {
        return Finding::ok("SNAT ports", format!("{a}, apart from this host's own {b}"));
    }
    Finding::bad(
        Level::Fail,
        "SNAT ports",
        format!("global.snat_ports {a} overlaps net.ipv4.ip_local_port_range {b}"),
        "set the sysctl to end below global.snat_ports, such as `sysctl -w \
         net.ipv4.ip_local_port_range=\"32768 60999\"`",
    )
}

/// What the daemon knows of attachment, services and servers.
pub fn of_daemon(inputs: &Inputs<'_>, interfaces: &[Interface], notes: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for interface in interfaces {
        let subject = format!("{}: XDP", interface.name);
        findings.push(match interface.xdp_mode.as_str() {
            "generic" => Finding::bad(
                Level::Warn,
                subject,
                "attached in generic mode, which is many times slower than native",
                "use a network card whose driver has native XDP; the log of `medlb run` says why \
                 native was refused",
            ),
            mode => Finding::ok(subject, format!("attached in {mode} mode")),
        });
    }
    for note in notes {
        let advice = "see the daemon's log";
        findings.push(Finding::bad(Level::Fail, "daemon", note.as_str(), advice));
    }
    for service in inputs.config.services.iter().filter(|service| service.enabled) {
        let judged: Vec<_> = service
            .real_servers
            .iter()
            .map(|real| (real, view::judgement(service, real, inputs)))
            .collect();
        let subject = format!("service {}", service.label);
        let state = view::state(judged.iter().map(|(_, judgement)| judgement.effective));
        findings.push(match state {
            "green" => Finding::ok(subject, "green: all real servers are in rotation"),
            "yellow" => Finding::bad(
                Level::Warn,
                subject,
                "yellow: not all real servers are in rotation",
                "see the findings on its real servers",
            ),
            _ => Finding::bad(
                Level::Fail,
                subject,
                "red: no real server is in rotation",
                "see the findings on its real servers",
            ),
        });
        for (real, judgement) in judged.iter().filter(|(_, j)| j.effective != Effective::InRotation)
        {
            findings.push(Finding::bad(
                if judgement.effective == Effective::Out { Level::Fail } else { Level::Warn },
                format!("{} / {}", service.label, real.label),
                format!("{}: {}", judgement.effective.word(), judgement.reasons.join("; ")),
                format!("`medlb explain {:?} {:?}` tells more", service.label, real.label),
            ));
        }
    }
    findings
}

/// How full tables are.
pub fn of_tables(snapshot: &Snapshot) -> Vec<Finding> {
    let level = |name: &String, entries: u64, capacity: u64| {
        let percent = entries.saturating_mul(100).checked_div(capacity).unwrap_or(0);
        let (subject, found) =
            (format!("table {name}"), format!("{entries} of {capacity}, {percent} %"));
        let level = match percent {
            p if p >= FULL_FAIL => Level::Fail,
            p if p >= FULL_WARN => Level::Warn,
            _ => return Finding::ok(subject, found),
        };
        let advice = "raise global.maximum_flows (takes effect after `medlb teardown`), or shorten \
                      idle_timeout";
        Finding::bad(level, subject, found, advice)
    };
    snapshot.tables.iter().map(|(name, t)| level(name, t.entries, t.capacity)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::TableStats;

    #[test]
    fn port_ranges_that_touch_this_hosts_own_are_told() {
        let local = port_range("32768\t60999\n").unwrap();
        assert_eq!(snat_ports(&(61000..=65535), &local).level, Level::Ok);
        let finding = snat_ports(&(60999..=65535), &local);
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.message.contains("32768-60999"), "{}", finding.message);
        assert_eq!(port_range("nonsense"), None);
    }

    #[test]
    fn tables_are_judged_by_how_full_they_are() {
        let table = |entries| Snapshot {
            tables: [("flows_v4".to_owned(), TableStats { entries, capacity: 1000 })].into(),
            ..Snapshot::default()
        };
        let level = |entries| of_tables(&table(entries))[0].level;
        assert_eq!([level(699), level(700), level(900)], [Level::Ok, Level::Warn, Level::Fail]);
    }

    #[test]
    fn a_missing_interface_is_a_failure() {
        assert_eq!(device("no-such-device").level, Level::Fail);
        assert_ne!(device("lo").message, "does not exist");
    }
}
