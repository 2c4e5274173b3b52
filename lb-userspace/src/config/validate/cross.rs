//! What services may not do to each other.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::super::model::{ForwardingMethod, Protocol, Service};
use super::super::problem::{At, Report, printable};
use super::Placed;
use super::global::Labels;

/// Whether a packet can belong to both.
pub fn protocols_meet(a: Protocol, b: Protocol) -> bool {
    a == b || a == Protocol::TcpUdp || b == Protocol::TcpUdp
}

/// The first port that both sorted lists have.
pub fn ranges_meet(a: &[RangeInclusive<u16>], b: &[RangeInclusive<u16>]) -> Option<u16> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
        let start = *left.start().max(right.start());
        if start <= *left.end().min(right.end()) {
            return Some(start);
        }
        if left.end() < right.end() {
            a.next()
        } else {
            b.next()
        };
    }
    None
}

/// Everything that needs more than one service to see.
pub fn services(placed: &[Placed], report: &mut Report) {
    labels(placed, report);
    let enabled: Vec<&Placed> = placed.iter().filter(|placed| placed.service.enabled).collect();
    overlaps(&enabled, report);
    shared_servers(&enabled, report);
    virtual_real_servers(&enabled, report);
}

fn labels(placed: &[Placed], report: &mut Report) {
    let list = At::ROOT.key("virtual_services");
    let mut labels = Labels::default();
    for Placed { index, service, .. } in placed {
        let first = labels.used(&service.label, *index).filter(|_| !service.label.is_empty());
        if let Some(first) = first {
            let label = printable(&service.label);
            let message = format!(
                "the label `{label}` is already that of virtual_services[{first}]; choose another"
            );
            report.error(&list.index(*index).key("label"), message);
        }
    }
}

fn overlaps(enabled: &[&Placed], report: &mut Report) {
    let list = At::ROOT.key("virtual_services");
    let mut by_address: HashMap<IpAddr, Vec<&Placed>> = HashMap::new();
    for placed in enabled {
        let service = &placed.service;
        let others = by_address.entry(service.address).or_default();
        for other in others.iter() {
            if !protocols_meet(other.service.protocol, service.protocol) {
                continue;
            }
            if let Some(port) = ranges_meet(&other.service.ports, &service.ports) {
                let message = format!(
                    "port {port} of {} is taken by two services, `{}` (virtual_services[{}]) and \
                     `{}`; give each its own ports or address",
                    service.address,
                    printable(&other.service.label),
                    other.index,
                    printable(&service.label),
                );
                report.error(&list.index(placed.index).key("ports"), message);
            }
        }
        others.push(placed);
    }
}

/// One way in which packets reach a real server.
struct Use<'a> {
    placed: &'a Placed,
    ports: Vec<RangeInclusive<u16>>,
}

/// Replies of a real server are told apart by its address and port. NAT and SNAT to the same ones
/// want different routes for them; two NAT services leave it open whose they are.
fn shared_servers(enabled: &[&Placed], report: &mut Report) {
    let list = At::ROOT.key("virtual_services");
    let mut by_address: HashMap<IpAddr, Vec<Use<'_>>> = HashMap::new();
    for &placed in enabled {
        let service = &placed.service;
        if service.forwarding_method == ForwardingMethod::Dr {
            continue;
        }
        for (place, server) in placed.servers.iter().zip(&service.real_servers) {
            let ports = match server.port {
                Some(port) => vec![port..=port],
                None => service.ports.clone(),
            };
            let uses = by_address.entry(server.address).or_default();
            let at = list.index(placed.index);
            let at = at.key("real_servers");
            let at = at.index(*place);
            for other in uses.iter().filter(|other| !std::ptr::eq(other.placed, placed)) {
                let theirs = &other.placed.service;
                if !protocols_meet(theirs.protocol, service.protocol) {
                    continue;
                }
                let Some(port) = ranges_meet(&other.ports, &ports) else { continue };
                if conflict(server.address, port, other.placed, service, &at, report) {
                    break;
                }
            }
            uses.push(Use { placed, ports });
        }
    }
}

/// Reports what two services do to one real server's port; whether there was anything.
fn conflict(
    address: IpAddr,
    port: u16,
    other: &Placed,
    service: &Service,
    at: &At<'_>,
    report: &mut Report,
) -> bool {
    let name = format!("`{}` (virtual_services[{}])", printable(&other.service.label), other.index);
    let mine = service.forwarding_method;
    if other.service.forwarding_method != mine {
        let (mine, theirs) = match mine {
            ForwardingMethod::Nat => ("nat", "snat"),
            _ => ("snat", "nat"),
        };
        let message = format!(
            "port {port} of {address} is reached by {mine} here and by {theirs} in {name}: the \
             rules for its replies conflict; use one forwarding method for both"
        );
        report.error(at, message);
        return true;
    }
    if mine == ForwardingMethod::Nat {
        let message = format!(
            "port {port} of {address} also serves {name} by nat: a client that uses one source \
             port for both at a time has its second connection refused"
        );
        report.warn(at, message);
        return true;
    }
    false
}

/// A RIP that is another service's VIP would send packets round in circles.
fn virtual_real_servers(enabled: &[&Placed], report: &mut Report) {
    let list = At::ROOT.key("virtual_services");
    let vips: HashMap<IpAddr, &Placed> =
        enabled.iter().map(|placed| (placed.service.address, *placed)).collect();
    for placed in enabled {
        for (place, server) in placed.servers.iter().zip(&placed.service.real_servers) {
            let Some(other) = vips.get(&server.address) else { continue };
            if server.address == placed.service.address {
                continue; // Reported with the server.
            }
            let message = format!(
                "{} is the address of the virtual service `{}`; name its servers instead",
                server.address,
                printable(&other.service.label),
            );
            let at = list.index(placed.index);
            let at = at.key("real_servers");
            report.warn(&at.index(*place).key("address"), message);
        }
    }
}
