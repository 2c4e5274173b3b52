//! Configuration values in the words of the configuration file.

use std::time::Duration;

use crate::config::model::{CheckKind, ForwardingMethod, HealthCheck, Protocol, Scheduler};
use crate::health::ProbeResult;

/// `protocol`.
pub const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::TcpUdp => "tcp+udp",
    }
}

/// `forwarding_method`.
pub const fn forwarding_method(method: ForwardingMethod) -> &'static str {
    match method {
        ForwardingMethod::Dr => "dr",
        ForwardingMethod::Nat => "nat",
        ForwardingMethod::Snat => "snat",
    }
}

/// `scheduler`.
pub const fn scheduler(scheduler: Scheduler) -> &'static str {
    match scheduler {
        Scheduler::Wlc => "wlc",
        Scheduler::Lc => "lc",
        Scheduler::Wrr => "wrr",
        Scheduler::Rr => "rr",
        Scheduler::Sh => "sh",
        Scheduler::Maglev => "maglev",
    }
}

/// The verdict of a probe.
pub const fn result(result: ProbeResult) -> &'static str {
    match result {
        ProbeResult::Pass => "pass",
        ProbeResult::Busy => "busy",
        ProbeResult::Fail => "fail",
    }
}

/// How a server is checked: `dicom-echo (dw1) every 6s, time-out 3s, rise 2, fall 3`.
pub fn check(check: &HealthCheck) -> String {
    let kind = match &check.kind {
        CheckKind::Connect => "connect".to_owned(),
        CheckKind::DicomEcho { calling_ae, called_ae, tls, .. } => {
            let tls = if tls.is_some() { " over TLS" } else { "" };
            format!("dicom-echo {calling_ae} -> {called_ae}{tls}")
        }
        CheckKind::Mllp { message: Some(_), .. } => "mllp with a message".to_owned(),
        CheckKind::Mllp { message: None, .. } => "mllp, connection only".to_owned(),
        CheckKind::Http { tls, path, method, .. } => {
            let scheme = if tls.is_some() { "https" } else { "http" };
            format!("{scheme} {method} {path}")
        }
        CheckKind::Ldap { tls, .. } => if tls.is_some() { "ldaps" } else { "ldap" }.to_owned(),
        CheckKind::Mssql { .. } => "mssql".to_owned(),
        CheckKind::Ping { .. } => "ping".to_owned(),
        CheckKind::External { command, .. } => {
            format!("external {}", command.first().map_or("", String::as_str))
        }
        CheckKind::None => return "none: it always counts as healthy".to_owned(),
    };
    let name = check.name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
    let port = check.port.map_or(String::new(), |port| format!(", port {port}"));
    let (every, timeout) = (span(check.interval), span(check.timeout));
    let (rise, fall) = (check.rise, check.fall);
    format!("{kind}{name}{port}, every {every}, time-out {timeout}, rise {rise}, fall {fall}")
}

fn span(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}
