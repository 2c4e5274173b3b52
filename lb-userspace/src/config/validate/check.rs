//! Health checks: their timing, their names, and how they fit the services that use them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::field::Field;
use super::super::model::{CheckKind, HealthCheck, Protocol};
use super::super::problem::{At, Report, printable};
use super::super::raw_check::{CheckRef, NamedChecks, RawCheck};
use super::super::scalar::{EVERY_PORT, Ports, suggestion, time_text};
use super::super::words::Via;
use super::check_kind;
use super::global::{Defaults, bounds};

/// The named checks, and the defaults of all.
pub struct Checks {
    named: HashMap<String, Named>,
    defaults: Defaults,
}

struct Named {
    /// None: it was wrong, which is reported where it stands.
    check: Option<Arc<HealthCheck>>,
    used: bool,
}

impl Checks {
    /// Validates `health_checks`.
    pub fn new(raw: Field<NamedChecks>, defaults: &Defaults, report: &mut Report) -> Self {
        let mut checks = Self { named: HashMap::new(), defaults: defaults.clone() };
        let at = At::ROOT.key("health_checks");
        for (name, raw) in report.optional(raw, &at).unwrap_or_default().0 {
            let at = at.key(&name);
            if name == "none" {
                report.error(&at, "`none` means no check; choose another name");
            }
            if name.is_empty() || name.len() > 120 {
                report.error(&at, "the name of a check must have 1 to 120 bytes");
            }
            if let Field::Absent = raw {
                report.error(&at, "is empty; write a check such as {type: connect}");
            }
            let raw = report.optional(raw, &at);
            let check = raw.and_then(|raw| checks.check(Some(name.clone()), raw, &at, report));
            checks.named.insert(name, Named { check: check.map(Arc::new), used: false });
        }
        checks
    }

    /// The check that a service or server refers to; none: it says nothing, or it is wrong.
    pub fn resolve(
        &mut self,
        raw: Field<CheckRef>,
        at: &At<'_>,
        report: &mut Report,
    ) -> Option<Arc<HealthCheck>> {
        match report.optional(raw, at)? {
            CheckRef::Inline(raw) => self.check(None, *raw, at, report).map(Arc::new),
            CheckRef::Named(name) if name == "none" => Some(Arc::new(self.plain(CheckKind::None))),
            CheckRef::Named(name) => {
                if let Some(named) = self.named.get_mut(&name) {
                    named.used = true;
                    return named.check.clone();
                }
                let mut names: Vec<&str> = self.named.keys().map(String::as_str).collect();
                names.sort_unstable();
                let hint = match suggestion(&name, names) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "define it there, or write {type: …}".into(),
                };
                let name = printable(&name);
                report.error(at, format!("`{name}` is not in health_checks; {hint}"));
                None
            }
        }
    }

    /// A check with nothing but defaults.
    pub fn plain(&self, kind: CheckKind) -> HealthCheck {
        let Defaults { interval, timeout, rise, fall, .. } = self.defaults;
        HealthCheck { name: None, kind, interval, timeout, rise, fall, port: None, via_rip: false }
    }

    fn check(
        &self,
        name: Option<String>,
        mut raw: RawCheck,
        at: &At<'_>,
        report: &mut Report,
    ) -> Option<HealthCheck> {
        report.unknown::<RawCheck>(&raw.unknown, at);
        let own_times = !matches!((&raw.interval, &raw.timeout), (Field::Absent, Field::Absent));
        let interval =
            report.time(std::mem::take(&mut raw.interval), &at.key("interval"), bounds::INTERVAL);
        let timeout =
            report.time(std::mem::take(&mut raw.timeout), &at.key("timeout"), bounds::TIMEOUT);
        let (interval, timeout) =
            (interval.unwrap_or(self.defaults.interval), timeout.unwrap_or(self.defaults.timeout));
        if own_times && interval < timeout {
            warn_interval(&at.key("interval"), interval, timeout, report);
        }
        let (rise, fall) = (std::mem::take(&mut raw.rise), std::mem::take(&mut raw.fall));
        let rise = report.u32_or(rise, &at.key("rise"), bounds::STREAK, self.defaults.rise);
        let fall = report.u32_or(fall, &at.key("fall"), bounds::STREAK, self.defaults.fall);
        let port = report.port(std::mem::take(&mut raw.port), &at.key("port"));
        let via = report.or(std::mem::take(&mut raw.via), &at.key("via"), Via::Vip);
        let kind = check_kind::kind(raw, at, report)?;
        let via_rip = via == Via::Rip;
        Some(HealthCheck { name, kind, interval, timeout, rise, fall, port, via_rip })
    }

    /// Warns of checks that nobody uses.
    pub fn warn_unused(&self, report: &mut Report) {
        let at = At::ROOT.key("health_checks");
        let mut unused: Vec<&String> =
            self.named.iter().filter(|(_, named)| !named.used).map(|(name, _)| name).collect();
        unused.sort();
        for name in unused {
            report.warn(&at.key(name), "no virtual service uses this check");
        }
    }
}

/// What a check's service is like, as far as the check cares.
pub struct Served<'a> {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its ports.
    pub ports: &'a Ports,
    /// The server's own port.
    pub port: Option<u16>,
}

/// Warns where a check does not fit its service.
pub fn warn_fit(check: &HealthCheck, served: &Served<'_>, at: &At<'_>, report: &mut Report) {
    let tcp = served.protocol != Protocol::Udp;
    let first = *served.ports.ranges.first().map_or(&1, |range| range.start());
    match &check.kind {
        CheckKind::Ping { .. } if tcp => report.warn(
            at,
            "ping tells that the host is up, not that the service is: a TCP service deserves a \
             check that connects, such as connect or dicom-echo",
        ),
        CheckKind::Ping { .. } | CheckKind::External { .. } | CheckKind::None => {}
        _ if check.port.or(served.port).is_some() => {}
        _ if served.ports.ranges == [EVERY_PORT] => report.warn(
            at,
            "the service takes every port, so the check connects to port 1; give it a `port`",
        ),
        _ if !tcp => report.warn(
            at,
            format!(
                "a UDP service is checked over TCP on port {first}; use ping, external or none, or \
                 give the check the `port` of a TCP listener"
            ),
        ),
        _ => {}
    }
}

/// Warns of an interval that ends before the check does.
pub fn warn_interval(at: &At<'_>, interval: Duration, timeout: Duration, report: &mut Report) {
    let (interval, timeout) = (time_text(interval), time_text(timeout));
    let message = format!(
        "the interval ({interval}) is shorter than the timeout ({timeout}): a server that does \
         not answer is checked less often than it says"
    );
    report.warn(at, message);
}
