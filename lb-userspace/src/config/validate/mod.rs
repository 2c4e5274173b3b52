//! From the file's shape to the model. Each function reports what is wrong and goes on with a
//! stand-in, so that one pass finds everything; a report with errors throws the stand-ins away.

mod check;
mod check_kind;
mod cross;
mod global;
mod server;
mod service;
mod take;

use std::net::IpAddr;

use super::model::Config;
use super::problem::{At, Report};
use super::raw::RawConfig;
use check::Checks;

/// A service, with its place in the file and its servers' places.
struct Placed {
    index: usize,
    service: super::model::Service,
    servers: Vec<usize>,
}

/// Validates the whole file.
pub fn config(raw: RawConfig, hash: String, report: &mut Report) -> Option<Config> {
    let root = At::ROOT;
    report.unknown::<RawConfig>(&raw.unknown, &root);
    let interfaces = global::interfaces(raw.interfaces, &root, report);
    let (global, defaults) = global::global(raw.global, &root.key("global"), report);
    let mut checks = Checks::new(raw.health_checks, &defaults, report);
    let at = root.key("virtual_services");
    let mut services = Vec::new();
    for (index, raw) in report.list(raw.virtual_services, &at).into_iter().enumerate() {
        let at = at.index(index);
        let Some(raw) = report.optional(raw, &at) else { continue };
        if let Some((service, servers)) = service::service(raw, &at, &defaults, &mut checks, report)
        {
            services.push(Placed { index, service, servers });
        }
    }
    if services.is_empty() && report.is_clean() {
        report.warn(&at, "there are no virtual services: nothing is balanced");
    }
    let outbound_snat = global::outbound_snat(raw.outbound_snat, &root, report);
    cross::services(&services, report);
    checks.warn_unused(report);
    let services = services.into_iter().map(|placed| placed.service).collect();
    Some(Config { interfaces, global, services, outbound_snat, hash })
}

/// Why an address cannot be a server's or a VIP.
fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("is the unspecified address"),
        _ if address.is_loopback() => Some("is a loopback address"),
        _ if address.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240 => {
            Some("is a reserved address")
        }
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Some("is an IPv4 address in IPv6 notation; write it as IPv4")
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("is a link-local address"),
        _ => None,
    }
}

/// `IPv4` or `IPv6`.
fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
