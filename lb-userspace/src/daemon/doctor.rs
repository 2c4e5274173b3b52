//! What `doctor` finds in a configuration, and in a running daemon.

use std::ops::RangeInclusive;
use std::path::Path;

use super::rotation::Effective;
use super::seams::{Inputs, Snapshot};
use super::view;
use crate::api::model::{Finding, Interface, Level};
use crate::config::model::{Config, ForwardingMethod, RealServer, Service};
use crate::dataplane::link;
use crate::net;

/// Above this a table is worth a look, in percent.
const FULL_WARN: u64 = 70;
/// Above this connections will soon be refused, in percent.
const FULL_FAIL: u64 = 90;

/// What the configuration asks of this host. Needs no daemon.
pub fn of_host(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        config.interfaces.iter().map(|interface| device(&interface.name)).collect();
    let pin_dir = &config.global.pin_dir;
    findings.extend(config.interfaces.iter().filter_map(|i| program(&i.name, pin_dir)));
    let snat = config.services.iter().any(|s| s.forwarding_method == ForwardingMethod::Snat)
        || !config.outbound_snat.is_empty();
    if snat {
        findings.push(snat_ports(&config.global.snat_ports));
    }
    findings
}

fn device(name: &str) -> Finding {
    let subject = format!("interface {name}");
    if net::interface_exists(name) {
        return Finding::ok(subject, "exists");
    }
    let advice = "correct `interfaces` in the configuration; `ip link` lists what there is";
    Finding::bad(Level::Fail, subject, "does not exist", advice)
}

/// Another program on an interface keeps medlb's from being attached.
fn program(name: &str, pin_dir: &Path) -> Option<Finding> {
    let xdp = link::query(link::By::Name(name)).ok()??.xdp?;
    if pin_dir.join("links").join(name).exists() {
        return None; // medlb's own: the daemon knows more of it
    }
    Some(Finding::bad(
        Level::Fail,
        format!("{name}: XDP"),
        format!("another XDP program (id {}) runs on it", xdp.program),
        format!("find out whose it is; `ip link set dev {name} xdp off` detaches it"),
    ))
}

fn snat_ports(ports: &RangeInclusive<u16>) -> Finding {
    match net::sysctl_advice_ports(ports) {
        Some(net::Advice { key, value, words }) => {
            Finding::bad(Level::Fail, "SNAT ports", format!("{key} is {value}"), words)
        }
        None => {
            let (start, end) = (ports.start(), ports.end());
            Finding::ok("SNAT ports", format!("{start}-{end}, apart from this host's own"))
        }
    }
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
                level(service, real, judgement.effective, inputs),
                format!("{} / {}", service.label, real.label),
                format!("{}: {}", judgement.effective.word(), judgement.reasons.join("; ")),
                format!("`medlb explain {:?} {:?}` tells more", service.label, real.label),
            ));
        }
    }
    findings
}

/// A server that is out is broken, unless an operator wants it so.
fn level(service: &Service, real: &RealServer, place: Effective, inputs: &Inputs<'_>) -> Level {
    let wanted = inputs.admin.contains_key(&view::label(service, real));
    if place == Effective::Out && !wanted { Level::Fail } else { Level::Warn }
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
        assert_eq!(device("lo").level, Level::Ok);
    }
}
