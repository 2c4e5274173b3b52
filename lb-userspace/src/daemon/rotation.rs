//! Is a server in rotation, and why? Pure: health, admin state and path in, words out.

use crate::admin::AdminState;
use crate::config::model::{ForwardingMethod, RealServer, Service};
use crate::health::{Health, View};

use super::seams::Next;

/// `effective` in `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effective {
    /// Takes new connections.
    InRotation,
    /// Takes none, keeps established ones.
    Draining,
    /// Not usable.
    Out,
}

impl Effective {
    /// As `status` shows it.
    pub const fn word(self) -> &'static str {
        match self {
            Effective::InRotation => "in_rotation",
            Effective::Draining => "draining",
            Effective::Out => "out",
        }
    }
}

/// The place of a server, and the reasons, the decisive one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The place.
    pub effective: Effective,
    /// In words.
    pub reasons: Vec<String>,
    /// Why packets cannot be sent to it.
    pub path_problem: Option<String>,
}

/// Judges one server. `decided` is what the data plane made of it: a server that was not judged
/// yet keeps the place that it had before the daemon was started, which only the data plane knows.
pub fn judge(
    service: &Service,
    real: &RealServer,
    view: Option<&View>,
    admin: AdminState,
    next: Option<&Next>,
    decided: Option<Effective>,
) -> Judgement {
    let path_problem = path_problem(service, next);
    let mut out = Vec::new();
    let mut draining = Vec::new();
    match admin {
        AdminState::Online => {}
        AdminState::Drain => {
            draining.push("an operator drains it: `medlb online` ends that".into())
        }
        AdminState::Halt => out.push("an operator halted it: `medlb online` ends that".into()),
    }
    match view.map_or(Health::Unknown, |view| view.health) {
        Health::Up | Health::Falling { .. } => {}
        Health::Unknown if decided.is_some_and(|place| place != Effective::Out) => {}
        Health::Unknown => out.push("it was not judged healthy yet".into()),
        Health::Down => out.push(format!("its health check fails: {}", last_detail(view))),
        Health::Rising { n } => out.push(format!(
            "it was down, and has passed {n} of the {} checks in a row that bring it up",
            real.health_check.rise
        )),
    }
    if let Some(problem) = &path_problem {
        out.push(problem.clone());
    }
    if view.is_some_and(|view| view.busy_drain) {
        draining.push(format!("it says that it is busy: {}", last_detail(view)));
    }
    if real.weight == 0 {
        draining.push("its weight is 0".into());
    }
    let effective = match (out.is_empty(), draining.is_empty()) {
        (false, _) => Effective::Out,
        (true, false) => Effective::Draining,
        (true, true) => Effective::InRotation,
    };
    let effective = effective.max(decided.unwrap_or(Effective::InRotation));
    let mut reasons = out;
    reasons.extend(draining);
    if reasons.is_empty() {
        let judged = view.is_some_and(|view| view.health != Health::Unknown);
        reasons.push(match (judged, effective) {
            (true, Effective::InRotation) => "it is healthy, online and reachable".into(),
            (true, _) => "the data plane has not followed yet".into(),
            (false, _) => {
                "it was not judged yet: until then it keeps the place that it had before".into()
            }
        });
    }
    if let Some(Health::Falling { n }) = view.map(|view| view.health) {
        let fall = real.health_check.fall;
        reasons.push(format!("{n} of {fall} failures in a row: {}", last_detail(view)));
    }
    if real.backup {
        reasons.push("it is a backup: it is used when no other can be".into());
    }
    Judgement { effective, reasons, path_problem }
}

fn path_problem(service: &Service, next: Option<&Next>) -> Option<String> {
    let next = next?;
    if next.problem.is_some() {
        return next.problem.clone();
    }
    let path = next.path.as_ref()?;
    if path.dst_mac.is_none() {
        return Some(
            "the MAC address of the next hop is not known: it answers no ARP or ND".into(),
        );
    }
    if service.forwarding_method == ForwardingMethod::Dr && !path.on_link {
        return Some(
            "it is behind a router, and forwarding_method dr reaches connected subnets only: use \
             snat"
                .into(),
        );
    }
    None
}

fn last_detail(view: Option<&View>) -> &str {
    let last = view.and_then(|view| view.history.last());
    last.map_or("no check has ended yet", |outcome| &outcome.detail)
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
