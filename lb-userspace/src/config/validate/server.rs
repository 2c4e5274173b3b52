//! The real servers of a virtual service.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::field::{Field, List};
use super::super::model::{ForwardingMethod, HealthCheck, RealServer, Scheduler, ServiceMode};
use super::super::problem::{At, Report, printable};
use super::super::raw::RawServer;
use super::check::{Checks, Served, warn_fit};
use super::global::{Labels, bounds};
use super::service::{Frame, label, same_family};

/// Whether a server has no check of its own.
pub fn inherits_check(raw: &Field<RawServer>) -> bool {
    matches!(raw, Field::Given(RawServer { health_check: Field::Absent, .. }))
}

/// A port, if every server has one of its own.
pub fn common_port(raws: &List<RawServer>) -> Option<u16> {
    let mut port = None;
    for raw in raws {
        let Field::Given(RawServer { port: Field::Given(own), .. }) = raw else { return None };
        port = u16::try_from(*own).ok();
    }
    port
}

/// Validates the servers; gives the place of each with them.
pub fn servers(
    raws: List<RawServer>,
    at: &At<'_>,
    frame: &Frame,
    check: &Arc<HealthCheck>,
    checks: &mut Checks,
    report: &mut Report,
) -> (Vec<usize>, Vec<RealServer>) {
    let (mut places, mut servers) = (Vec::new(), Vec::new());
    let mut labels = Labels::default();
    let mut targets = HashMap::new();
    for (index, raw) in raws.into_iter().enumerate() {
        let at = at.index(index);
        let Some(raw) = report.optional(raw, &at) else { continue };
        let name = match &raw.label {
            Field::Given(label) => labels.used(label, index).map(|first| (label.clone(), first)),
            _ => None,
        };
        if let Some((label, first)) = name {
            let label = printable(&label);
            let message = format!(
                "the label `{label}` is already that of real_servers[{first}]; choose another"
            );
            report.error(&at.key("label"), message);
        }
        let Some(server) = server(raw, &at, frame, check, checks, report) else { continue };
        let target = (server.address, server.port);
        if let Some(first) = targets.insert(target, index) {
            let address = server.address;
            let message = format!("{address} is already real_servers[{first}] with the same port");
            report.warn(&at.key("address"), message);
        }
        places.push(index);
        servers.push(server);
    }
    warn_weights(&servers, frame, at, report);
    (places, servers)
}

fn server(
    raw: RawServer,
    at: &At<'_>,
    frame: &Frame,
    check: &Arc<HealthCheck>,
    checks: &mut Checks,
    report: &mut Report,
) -> Option<RealServer> {
    report.unknown::<RawServer>(&raw.unknown, at);
    let what = "give the server a name that is unique in its service";
    let label = label(raw.label, &at.key("label"), what, report);
    let at_address = at.key("address");
    if matches!(raw.address, Field::Absent) {
        report.error(&at_address, "is missing; write the real server's IP address");
    }
    let address = report.unicast(raw.address, &at_address);
    let address = address.filter(|a| same_family(*a, frame.address, &at_address, report));
    if address.is_some() && address == frame.address {
        let message = "is the service's own address; a real server needs one of its own";
        report.error(&at_address, message);
    }
    let port = report.port(raw.port, &at.key("port"));
    let port = port.and_then(|port| translated(port, frame, &at.key("port"), report));
    let weight = report.u32_or(raw.weight, &at.key("weight"), 0..=u32::from(u16::MAX), 100);
    let all = 0..=u32::MAX;
    let at_minimum = at.key("minimum_connections");
    let minimum = report.u32_or(raw.minimum_connections, &at_minimum, all.clone(), 0);
    let at_maximum = at.key("maximum_connections");
    let maximum = report.u32_or(raw.maximum_connections, &at_maximum, all, 0);
    if maximum == 0 && minimum > 0 {
        report.warn(&at_minimum, "has no effect without maximum_connections");
    } else if minimum > 0 && minimum >= maximum {
        let message = format!(
            "{minimum} must be below maximum_connections ({maximum}): it is where a full server \
             takes connections again"
        );
        report.error(&at_minimum, message);
    }
    let slow_start = report.time(raw.slow_start, &at.key("slow_start"), bounds::SLOW_START);
    let at_check = at.key("health_check");
    let own = checks.resolve(raw.health_check, &at_check, report);
    if let (Some(own), Some(ports)) = (&own, &frame.ports) {
        warn_fit(own, &Served { protocol: frame.protocol, ports, port }, &at_check, report);
    }
    Some(RealServer {
        label: label.unwrap_or_default(),
        address: address?,
        port,
        weight: u16::try_from(weight).unwrap_or(u16::MAX),
        minimum_connections: minimum,
        maximum_connections: maximum,
        backup: report.or(raw.backup, &at.key("backup"), false),
        slow_start: slow_start.unwrap_or(Duration::ZERO),
        health_check: own.unwrap_or_else(|| check.clone()),
    })
}

/// The port that a server's connections are translated to, if the service may translate.
fn translated(port: u16, frame: &Frame, at: &At<'_>, report: &mut Report) -> Option<u16> {
    if frame.ports.is_none() {
        return Some(port);
    }
    let single = frame.single_port();
    match frame.forwarding_method? {
        ForwardingMethod::Dr if single == Some(port) => None,
        ForwardingMethod::Dr if frame.has_port(port) => {
            let message = "has no effect: dr leaves the port as the client chose it; remove it";
            report.warn(at, message);
            None
        }
        ForwardingMethod::Dr => {
            let message = "dr cannot change the port, and the service does not have this one; \
                           remove it, or use nat or snat";
            report.error(at, message);
            None
        }
        _ if single.is_none() => {
            let message = "the service has several ports, and all of them would end up on this \
                           one; remove it, or make a service for each port";
            report.error(at, message);
            None
        }
        _ => Some(port),
    }
}

/// Warns of weights that have no effect, or too much.
fn warn_weights(servers: &[RealServer], frame: &Frame, at: &At<'_>, report: &mut Report) {
    let Some(first) = servers.first() else { return };
    if servers.iter().all(|server| server.weight == 0) {
        report.warn(at, "every server has weight 0: none takes new connections");
    }
    let positive = |server: &&RealServer| server.weight != 0;
    let uneven = servers.iter().filter(positive).any(|server| server.weight != first.weight);
    let ignored = match (frame.mode, frame.scheduler) {
        (ServiceMode::Failover, _) => Some("mode: failover"),
        (_, Scheduler::Lc) => Some("scheduler: lc"),
        (_, Scheduler::Rr) => Some("scheduler: rr"),
        _ => None,
    };
    if let Some(ignored) = ignored.filter(|_| uneven && first.weight != 0) {
        report.warn(at, format!("{ignored} ignores that the weights differ"));
    }
}
