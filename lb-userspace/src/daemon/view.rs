//! The daemon's state as `status`, `stats` and `explain` show it. Pure.

use std::collections::HashMap;
use std::time::SystemTime;

use super::rotation::{Effective, Judgement, judge};
use super::seams::{Inputs, Snapshot};
use super::words;
use crate::admin::{AdminState, ServerLabel};
use crate::api::model::{self, LastCheck, RealServerStats, ServiceStats, Stats, Traffic};
use crate::config::model::{RealServer, Service};
use crate::health::{Health, Outcome, View};

/// RFC 3339, seconds.
pub fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// The services of `status`.
pub fn services(inputs: &Inputs<'_>, snapshot: &Snapshot) -> Vec<model::Service> {
    let enabled = inputs.config.services.iter().filter(|service| service.enabled);
    enabled.map(|one| service(one, inputs, snapshot)).collect()
}

fn service(service: &Service, inputs: &Inputs<'_>, snapshot: &Snapshot) -> model::Service {
    let judged: Vec<(&RealServer, Judgement)> =
        service.real_servers.iter().map(|real| (real, judgement(service, real, inputs))).collect();
    let state = state(judged.iter().map(|(_, judgement)| judgement.effective));
    let traffic = snapshot.services.get(&service.label).copied().unwrap_or_default();
    model::Service {
        label: service.label.clone(),
        address: service.address.to_string(),
        ports: service.ports_text.clone(),
        protocol: words::protocol(service.protocol).into(),
        forwarding_method: words::forwarding_method(service.forwarding_method).into(),
        scheduler: words::scheduler(service.scheduler).into(),
        state: state.into(),
        active_connections: traffic.active_connections,
        using_fallback: state == "red" && service.fallback_server.is_some(),
        real_servers: judged
            .iter()
            .map(|(real, judgement)| real_server(service, real, judgement, inputs, snapshot))
            .collect(),
    }
}

/// What decides about one server.
pub fn judgement(service: &Service, real: &RealServer, inputs: &Inputs<'_>) -> Judgement {
    let label = label(service, real);
    let admin = inputs.admin.get(&label).copied().unwrap_or_default();
    let (view, next) = (inputs.health.get(&label), inputs.paths.get(&real.address));
    judge(service, real, view, admin, next, inputs.decided.get(&label).copied())
}

/// A server's label pair.
pub fn label(service: &Service, real: &RealServer) -> ServerLabel {
    (service.label.clone(), real.label.clone())
}

/// Green: all servers in rotation; yellow: some; red: none.
pub fn state(servers: impl IntoIterator<Item = Effective>) -> &'static str {
    let (mut usable, mut all) = (0, 0);
    for effective in servers {
        all += 1;
        usable += usize::from(effective == Effective::InRotation);
    }
    match usable {
        0 => "red",
        n if n == all => "green",
        _ => "yellow",
    }
}

/// One server of `status`.
pub fn real_server(
    service: &Service,
    real: &RealServer,
    judgement: &Judgement,
    inputs: &Inputs<'_>,
    snapshot: &Snapshot,
) -> model::RealServer {
    let label = label(service, real);
    let view = inputs.health.get(&label);
    let (health, health_count) = health(view);
    let admin: AdminState = inputs.admin.get(&label).copied().unwrap_or_default();
    let traffic = snapshot.reals.get(&label).copied().unwrap_or_default();
    let judged = view.filter(|view| view.health != Health::Unknown);
    model::RealServer {
        label: real.label.clone(),
        address: real.address.to_string(),
        port: real.port,
        weight: real.weight,
        health: health.into(),
        health_count,
        admin: admin.word().into(),
        effective: judgement.effective.word().into(),
        active_connections: traffic.active_connections,
        last_check: view.and_then(|view| view.history.last()).map(last_check),
        changed_at: judged.map(|view| time(view.changed_at)),
        path_problem: judgement.path_problem.clone(),
    }
}

/// The word and the count of falling n and rising n.
pub fn health(view: Option<&View>) -> (&'static str, u32) {
    match view.map_or(Health::Unknown, |view| view.health) {
        Health::Unknown => ("unknown", 0),
        Health::Up => ("up", 0),
        Health::Falling { n } => ("falling", n),
        Health::Down => ("down", 0),
        Health::Rising { n } => ("rising", n),
    }
}

/// An outcome as it is shown.
pub fn last_check(outcome: &Outcome) -> LastCheck {
    LastCheck {
        at: time(outcome.at),
        result: words::result(outcome.result).into(),
        phase: outcome.phase.into(),
        detail: outcome.detail.clone(),
        duration_ms: (outcome.duration.as_secs_f64() * 1e4).round() / 10.0,
    }
}

/// `stats`.
pub fn stats(inputs: &Inputs<'_>, snapshot: &Snapshot) -> Stats {
    let enabled = inputs.config.services.iter().filter(|service| service.enabled);
    Stats {
        services: enabled.map(|service| service_stats(service, snapshot)).collect(),
        verdicts: snapshot.verdicts.clone(),
        tables: snapshot.tables.clone(),
    }
}

fn service_stats(service: &Service, snapshot: &Snapshot) -> ServiceStats {
    let mut real_servers: Vec<RealServerStats> = service
        .real_servers
        .iter()
        .map(|real| RealServerStats {
            label: real.label.clone(),
            traffic: of(&snapshot.reals, &label(service, real)),
        })
        .collect();
    if service.fallback_server.is_some() {
        let traffic = of(&snapshot.fallbacks, &service.label);
        real_servers.push(RealServerStats { label: "fallback".into(), traffic });
    }
    ServiceStats {
        label: service.label.clone(),
        traffic: of(&snapshot.services, &service.label),
        drops: snapshot.drops.get(&service.label).cloned().unwrap_or_default(),
        real_servers,
    }
}

fn of<K: std::hash::Hash + Eq>(map: &HashMap<K, Traffic>, key: &K) -> Traffic {
    map.get(key).copied().unwrap_or_default()
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
