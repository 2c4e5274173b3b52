//! A virtual service.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::super::field::Field;
use super::super::model::{
    CheckKind, FallbackServer, ForwardingMethod, OnDown, Persistence, Protocol, Scheduler, Service,
    ServiceMode,
};
use super::super::problem::{At, Report};
use super::super::raw::{NoneOr, RawDrain, RawFallback, RawOnDown, RawPersistence, RawService};
use super::super::scalar::Ports;
use super::super::words::{Established, Stored};
use super::check::{Checks, Served, warn_fit};
use super::global::{Defaults, bounds};
use super::{family, server};
use crate::desired::LABEL_PREFIX;

/// What a service's servers need to know about it.
pub struct Frame {
    /// The VIP; none: it is wrong, which was reported.
    pub address: Option<IpAddr>,
    /// None: they are wrong.
    pub ports: Option<Ports>,
    /// `protocol`.
    pub protocol: Protocol,
    /// None: it is wrong.
    pub forwarding_method: Option<ForwardingMethod>,
    /// `scheduler`.
    pub scheduler: Scheduler,
    /// `mode`.
    pub mode: ServiceMode,
}

impl Frame {
    /// The only port that the service has, if it has one only.
    pub fn single_port(&self) -> Option<u16> {
        match self.ports.as_ref()?.ranges.as_slice() {
            [range] if range.len() == 1 => Some(*range.start()),
            _ => None,
        }
    }

    /// Whether the service has this port.
    pub fn has_port(&self, port: u16) -> bool {
        let ports = self.ports.as_ref();
        ports.is_none_or(|ports| ports.ranges.iter().any(|range| range.contains(&port)))
    }
}

/// Validates a service; gives the places of its servers with it.
pub fn service(
    raw: RawService,
    at: &At<'_>,
    defaults: &Defaults,
    checks: &mut Checks,
    report: &mut Report,
) -> Option<(Service, Vec<usize>)> {
    report.unknown::<RawService>(&raw.unknown, at);
    let label = label(raw.label, &at.key("label"), "give the service a unique name", report);
    if label.as_ref().is_some_and(|label| label.starts_with(LABEL_PREFIX)) {
        let message = format!(
            "begins with `{LABEL_PREFIX}`, which stands for rules of \
                               outbound_snat in listings; choose another name"
        );
        report.error(&at.key("label"), message);
    }
    let at_address = at.key("address");
    if matches!(raw.address, Field::Absent) {
        report.error(&at_address, "is missing; write the virtual IP address");
    }
    let address = report.unicast(raw.address, &at_address);
    let at_ports = at.key("ports");
    let ports = report.required(raw.ports, &at_ports, "name one port or more, or \"*\" for all");
    if let Some(port) = ports.as_ref().and_then(|ports| ports.repeated) {
        report.warn(&at_ports, format!("port {port} is named twice"));
    }
    let what = "write dr, nat or snat";
    let at_method = at.key("forwarding_method");
    let frame = Frame {
        address,
        ports,
        protocol: report.or(raw.protocol, &at.key("protocol"), Protocol::Tcp),
        forwarding_method: report.required(raw.forwarding_method, &at_method, what),
        scheduler: report.or(raw.scheduler, &at.key("scheduler"), Scheduler::Wlc),
        mode: report.or(raw.mode, &at.key("mode"), ServiceMode::LoadBalanced),
    };
    let persistence = persistence(raw.persistence, &at.key("persistence"), &frame, report);
    if persistence.is_none() {
        warn_without_persistence(&frame, &at_ports, report);
    }
    let source_address = source(raw.source_address, &at.key("source_address"), &frame, report);
    let idle = report.time(raw.idle_timeout, &at.key("idle_timeout"), bounds::IDLE);
    let fallback_server = fallback(raw.fallback_server, &at.key("fallback_server"), &frame, report);
    let on_down = on_down(raw.on_down, &at.key("on_down"), report);
    let drain_keep_persistent = drain(raw.drain, &at.key("drain"), report);

    let at_check = at.key("health_check");
    let check = checks
        .resolve(raw.health_check, &at_check, report)
        .unwrap_or_else(|| Arc::new(checks.plain(CheckKind::Connect)));
    let at_servers = at.key("real_servers");
    let raws = report.list(raw.real_servers, &at_servers);
    let inherits = raws.iter().any(server::inherits_check);
    if let Some(ports) = frame.ports.as_ref().filter(|_| inherits) {
        // A port that each server has of its own is judged with the server.
        let served = Served { protocol: frame.protocol, ports, port: server::common_port(&raws) };
        warn_fit(&check, &served, &at_check, report);
    }
    let (servers, real_servers) =
        server::servers(raws, &at_servers, &frame, &check, checks, report);
    if real_servers.is_empty() && fallback_server.is_none() {
        let message = "there are no real servers and no fallback server: every connection is \
                       refused";
        report.warn(&at_servers, message);
    }
    let ports = frame.ports?;
    let service = Service {
        label: label.unwrap_or_default(),
        address: address?,
        ports: ports.ranges,
        ports_text: ports.text,
        protocol: frame.protocol,
        forwarding_method: frame.forwarding_method?,
        scheduler: frame.scheduler,
        mode: frame.mode,
        persistence,
        source_address,
        idle_timeout: idle.unwrap_or(defaults.idle_timeout),
        udp_idle_timeout: idle.unwrap_or(Duration::from_secs(300)),
        fallback_server,
        on_down,
        drain_keep_persistent,
        manage_address: report.or(raw.manage_address, &at.key("manage_address"), true),
        enabled: report.or(raw.enabled, &at.key("enabled"), true),
        real_servers,
    };
    Some((service, servers))
}

/// A label of a service or a server.
pub fn label(raw: Field<String>, at: &At<'_>, what: &str, report: &mut Report) -> Option<String> {
    if matches!(raw, Field::Absent) {
        report.error(at, format!("is missing; {what}"));
    }
    report.text(raw, at, 120)
}

fn warn_without_persistence(frame: &Frame, at: &At<'_>, report: &mut Report) {
    let several = frame.ports.is_some() && frame.single_port().is_none();
    if several && frame.forwarding_method == Some(ForwardingMethod::Dr) {
        let message = "a dr service with several ports and no persistence: a client may reach a \
                       different server on each port; add persistence: {timeout: 1h} if its \
                       connections belong together";
        report.warn(at, message);
    }
}

fn persistence(
    raw: Field<NoneOr<RawPersistence>>,
    at: &At<'_>,
    frame: &Frame,
    report: &mut Report,
) -> Option<Persistence> {
    let NoneOr::Some(raw) = report.optional(raw, at)? else { return None };
    report.unknown::<RawPersistence>(&raw.unknown, at);
    let timeout = report.time(raw.timeout, &at.key("timeout"), bounds::PERSISTENCE);
    let bits = if frame.address.is_some_and(|address| address.is_ipv4()) { 32 } else { 128 };
    let prefix = report.number(raw.prefix_length, &at.key("prefix_length"), 1..=bits);
    let prefix_length = u8::try_from(prefix.unwrap_or(bits)).unwrap_or(128);
    let timeout = timeout.unwrap_or(Duration::from_secs(300));
    Some(Persistence { timeout, prefix_length })
}

fn source(raw: Field<IpAddr>, at: &At<'_>, frame: &Frame, report: &mut Report) -> Option<IpAddr> {
    if matches!(raw, Field::Absent) {
        return None;
    }
    if frame.forwarding_method.is_some_and(|method| method != ForwardingMethod::Snat) {
        let message = "is not used: it belongs to forwarding_method: snat; in dr and nat the \
                       servers see the client's address";
        report.warn(at, message);
        let source = report.unicast(raw, at)?;
        same_family(source, frame.address, at, report);
        return None;
    }
    let source = report.unicast(raw, at)?;
    same_family(source, frame.address, at, report).then_some(source)
}

/// Reports an address of another family than the VIP.
pub fn same_family(address: IpAddr, vip: Option<IpAddr>, at: &At<'_>, report: &mut Report) -> bool {
    match vip {
        Some(vip) if family(vip) != family(address) => {
            let (mine, its) = (family(address), family(vip));
            report.error(
                at,
                format!("{address} is {mine}, but the service's address {vip} is {its}"),
            );
            false
        }
        _ => true,
    }
}

fn fallback(
    raw: Field<RawFallback>,
    at: &At<'_>,
    frame: &Frame,
    report: &mut Report,
) -> Option<FallbackServer> {
    let raw = report.optional(raw, at)?;
    report.unknown::<RawFallback>(&raw.unknown, at);
    let at_address = at.key("address");
    if matches!(raw.address, Field::Absent) {
        report.error(&at_address, "is missing; write the fallback server's address");
    }
    let address = report.unicast(raw.address, &at_address);
    let at_port = at.key("port");
    let mut port = report.port(raw.port, &at_port);
    if let Some(given) = port
        && frame.forwarding_method == Some(ForwardingMethod::Dr)
    {
        if frame.ports.is_some() && frame.single_port() != Some(given) {
            let message = "is not used: dr cannot change the port, and the fallback server is \
                           asked on the client's; remove it, or use nat or snat";
            report.warn(&at_port, message);
        }
        port = None;
    }
    let address = address?;
    if Some(address) == frame.address {
        report.error(&at_address, format!("{address} is the service's own address"));
    }
    same_family(address, frame.address, &at_address, report)
        .then_some(FallbackServer { address, port })
}

fn on_down(raw: Field<RawOnDown>, at: &At<'_>, report: &mut Report) -> OnDown {
    let raw = report.optional(raw, at).unwrap_or_default();
    report.unknown::<RawOnDown>(&raw.unknown, at);
    let established = report.or(raw.established, &at.key("established"), Established::Reset);
    let persistence = report.or(raw.persistence, &at.key("persistence"), Stored::Drop);
    OnDown {
        reset_established: established == Established::Reset,
        keep_persistence: persistence == Stored::Keep,
    }
}

fn drain(raw: Field<RawDrain>, at: &At<'_>, report: &mut Report) -> bool {
    let raw = report.optional(raw, at).unwrap_or_default();
    report.unknown::<RawDrain>(&raw.unknown, at);
    report.or(raw.keep_persistent, &at.key("keep_persistent"), false)
}
