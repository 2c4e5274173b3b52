//! `interfaces`, `global` and `outbound_snat`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::super::field::{Field, List};
use super::super::model::{Global, Interface, OutboundSnat, Protocol, XdpMode};
use super::super::problem::{At, Report, printable};
use super::super::raw::{InterfaceEntry, RawDefaults, RawGlobal, RawInterface, RawOutboundSnat};
use super::cross::{protocols_meet, ranges_meet};
use super::family;

/// `global.defaults`, complete.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Of checks.
    pub interval: Duration,
    /// Of checks.
    pub timeout: Duration,
    /// Of checks.
    pub rise: u32,
    /// Of checks.
    pub fall: u32,
    /// Of services.
    pub idle_timeout: Duration,
}

/// RFC 5382's 2 h 4 min, the idle time before an established TCP connection may be forgotten.
const IDLE_TIMEOUT: Duration = Duration::from_secs(7440);

/// Bounds of durations, shared with checks and services.
pub mod bounds {
    use std::ops::RangeInclusive;
    use std::time::Duration;

    const DAY: u64 = 86400;
    /// `interval`.
    pub const INTERVAL: RangeInclusive<Duration> =
        Duration::from_millis(100)..=Duration::from_secs(DAY);
    /// `timeout` of a check.
    pub const TIMEOUT: RangeInclusive<Duration> =
        Duration::from_millis(10)..=Duration::from_secs(3600);
    /// `idle_timeout`; the data plane counts seconds.
    pub const IDLE: RangeInclusive<Duration> =
        Duration::from_secs(1)..=Duration::from_secs(365 * DAY);
    /// `persistence.timeout`.
    pub const PERSISTENCE: RangeInclusive<Duration> = IDLE;
    /// `slow_start`.
    pub const SLOW_START: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(DAY);
    /// `rise` and `fall`.
    pub const STREAK: RangeInclusive<u32> = 1..=1000;
}

/// `interfaces`.
pub fn interfaces(
    raw: Field<List<InterfaceEntry>>,
    root: &At<'_>,
    report: &mut Report,
) -> Vec<Interface> {
    let at = root.key("interfaces");
    let empty = match &raw {
        Field::Absent => true,
        Field::Given(list) => list.is_empty(),
        Field::Wrong(_) => false,
    };
    if empty {
        report.error(&at, "is missing; name at least one network device, as in [eth0]");
    }
    let mut interfaces: Vec<Interface> = Vec::new();
    for (index, entry) in report.list(raw, &at).into_iter().enumerate() {
        let at = at.index(index);
        let (name, xdp_mode) = match report.optional(entry, &at) {
            Some(InterfaceEntry::Name(name)) => (Some(name), XdpMode::Auto),
            Some(InterfaceEntry::Full(full)) => {
                report.unknown::<RawInterface>(&full.unknown, &at);
                let what = "write the device's name, such as eth0";
                let name = report.required(full.name, &at.key("name"), what);
                (name, report.or(full.xdp_mode, &at.key("xdp_mode"), XdpMode::Auto))
            }
            None => continue,
        };
        let Some(name) = name else { continue };
        // The kernel's rules, dev_valid_name().
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
            let name = printable(&name);
            report.error(&at, format!("`{name}` cannot be a device name (1 to 15 characters)"));
        } else if interfaces.iter().any(|other| other.name == name) {
            report.error(&at, format!("`{name}` is listed twice; keep one"));
        } else {
            interfaces.push(Interface { name, xdp_mode });
        }
    }
    interfaces
}

/// `global` with its defaults.
pub fn global(raw: Field<RawGlobal>, at: &At<'_>, report: &mut Report) -> (Global, Defaults) {
    let raw = report.optional(raw, at).unwrap_or_default();
    report.unknown::<RawGlobal>(&raw.unknown, at);
    let socket = path(raw.socket, &at.key("socket"), "/run/medlb/medlb.sock", report);
    if socket.as_os_str().len() > 107 {
        let message = "is longer than the 107 bytes that the kernel allows for a socket's path";
        report.error(&at.key("socket"), message);
    }
    let tables = 1024..=16 * 1024 * 1024;
    let global = Global {
        socket,
        socket_group: report.text(raw.socket_group, &at.key("socket_group"), 32),
        state_dir: path(raw.state_dir, &at.key("state_dir"), "/var/lib/medlb", report),
        pin_dir: path(raw.pin_dir, &at.key("pin_dir"), "/sys/fs/bpf/medlb", report),
        maximum_flows: report.u32_or(
            raw.maximum_flows,
            &at.key("maximum_flows"),
            tables.clone(),
            262_144,
        ),
        maximum_half_open: report.u32_or(
            raw.maximum_half_open,
            &at.key("maximum_half_open"),
            tables,
            65_536,
        ),
        snat_ports: match report.optional(raw.snat_ports, &at.key("snat_ports")) {
            Some(range) => range.0,
            None => 61_000..=65_535,
        },
    };
    if *global.snat_ports.start() < 1024 {
        report.error(&at.key("snat_ports"), "must not reach below port 1024");
    } else if global.snat_ports.len() < 256 {
        let message = "has fewer than 256 ports: SNAT soon finds none free";
        report.warn(&at.key("snat_ports"), message);
    }
    (global, defaults(raw.defaults, &at.key("defaults"), report))
}

fn path(raw: Field<PathBuf>, at: &At<'_>, default: &str, report: &mut Report) -> PathBuf {
    report.or(raw, at, default.into())
}

fn defaults(raw: Field<RawDefaults>, at: &At<'_>, report: &mut Report) -> Defaults {
    let raw = report.optional(raw, at).unwrap_or_default();
    report.unknown::<RawDefaults>(&raw.unknown, at);
    let seconds = Duration::from_secs;
    let interval = report.time(raw.interval, &at.key("interval"), bounds::INTERVAL);
    let timeout = report.time(raw.timeout, &at.key("timeout"), bounds::TIMEOUT);
    let idle = report.time(raw.idle_timeout, &at.key("idle_timeout"), bounds::IDLE);
    let defaults = Defaults {
        interval: interval.unwrap_or(seconds(6)),
        timeout: timeout.unwrap_or(seconds(3)),
        rise: report.u32_or(raw.rise, &at.key("rise"), bounds::STREAK, 2),
        fall: report.u32_or(raw.fall, &at.key("fall"), bounds::STREAK, 3),
        idle_timeout: idle.unwrap_or(IDLE_TIMEOUT),
    };
    if defaults.interval < defaults.timeout {
        super::check::warn_interval(
            &at.key("interval"),
            defaults.interval,
            defaults.timeout,
            report,
        );
    }
    defaults
}

/// `outbound_snat`.
pub fn outbound_snat(
    raw: Field<List<RawOutboundSnat>>,
    root: &At<'_>,
    report: &mut Report,
) -> Vec<OutboundSnat> {
    let at = root.key("outbound_snat");
    let mut rules: Vec<(usize, OutboundSnat)> = Vec::new();
    for (index, raw) in report.list(raw, &at).into_iter().enumerate() {
        let at = at.index(index);
        let Some(raw) = report.optional(raw, &at) else { continue };
        if let Some(rule) = outbound_rule(raw, &at, report) {
            let clash = rules.iter().find(|(_, other)| {
                other.to_source != rule.to_source
                    && protocols_meet(other.protocol, rule.protocol)
                    && ranges_meet(&other.ports, &rule.ports).is_some()
                    && other.sources.iter().any(|source| rule.sources.contains(source))
            });
            if let Some((other, _)) = clash {
                let message = format!(
                    "covers a source and port that outbound_snat[{other}] already sends from \
                     another address; give each source and port one rule"
                );
                report.error(&at, message);
            }
            rules.push((index, rule));
        }
    }
    rules.into_iter().map(|(_, rule)| rule).collect()
}

fn outbound_rule(raw: RawOutboundSnat, at: &At<'_>, report: &mut Report) -> Option<OutboundSnat> {
    report.unknown::<RawOutboundSnat>(&raw.unknown, at);
    let at_to = at.key("to_source");
    if matches!(raw.to_source, Field::Absent) {
        report.error(&at_to, "is missing; write the address that the connections leave with");
    }
    let to_source = report.unicast(raw.to_source, &at_to);
    let at_sources = at.key("sources");
    let listed = report.required(raw.sources, &at_sources, "list the real servers' addresses");
    let mut sources: Vec<IpAddr> = Vec::new();
    if let Some(listed) = listed {
        if listed.0.is_empty() {
            report.error(&at_sources, "is empty; list the real servers' addresses");
        }
        for (index, source) in listed.0.into_iter().enumerate() {
            let at = at_sources.index(index);
            let Some(source) = report.unicast(source, &at) else { continue };
            match to_source {
                Some(to) if family(to) != family(source) => {
                    let (source, to) = (family(source), family(to));
                    report.error(&at, format!("is {source}, but to_source is {to}"));
                }
                _ if sources.contains(&source) => {
                    report.warn(&at, format!("{source} is listed twice"));
                }
                _ => sources.push(source),
            }
        }
    }
    let protocol = report.or(raw.protocol, &at.key("protocol"), Protocol::Tcp);
    let ports = report.required(raw.ports, &at.key("ports"), "name the destination ports")?;
    let to_source = to_source?;
    Some(OutboundSnat { sources, protocol, ports: ports.ranges, to_source })
}

/// Finds labels that were used before.
#[derive(Default)]
pub struct Labels {
    seen: HashMap<String, usize>,
}

impl Labels {
    /// Where the label was used before, if it was.
    pub fn used(&mut self, label: &str, index: usize) -> Option<usize> {
        match self.seen.get(label) {
            Some(first) => Some(*first),
            None => {
                self.seen.insert(label.to_owned(), index);
                None
            }
        }
    }
}
