//! One probe: one protocol, one exchange, one deadline. Each protocol has a file; this one holds
//! what they share: what is probed, how a finding is put, and the door that the runner uses.

mod connect;
pub mod dial;
mod dicom_command;
mod dicom_echo;
mod dicom_wire;
mod external;
mod hl7;
mod http;
mod icmp;
mod ldap;
mod look;
mod mllp;
mod mssql;
mod ping;
pub mod secret;
mod stream;
mod tls;
mod words;

#[cfg(test)]
mod dicom_tests;
#[cfg(test)]
mod external_tests;
#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod ldap_tests;
#[cfg(test)]
mod mllp_tests;
#[cfg(test)]
mod tcp_tests;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod vip_tests;

pub use look::Memory;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Outcome, ProbeResult};
use crate::config::model::{CheckKind, HealthCheck, Tls};
use dial::Dialer;
use stream::Stream;

/// How long after its deadline a probe may still take leave of its peer (an A-ABORT, a FIN).
const LEAVE: Duration = Duration::from_millis(1500);

/// What is probed.
#[derive(Clone, Debug)]
pub struct Request {
    /// Label of the virtual service.
    pub service: String,
    /// Label of the real server.
    pub real: String,
    /// The real server's address.
    pub rip: IpAddr,
    /// The port that is checked; 0: blank, as for a check of every port.
    pub port: u16,
    /// The service's address.
    pub vip: IpAddr,
    /// The service's first port.
    pub vip_port: u16,
    /// The port that a script is told: the operator's, or 0 where that was left blank.
    pub rpt: u16,
    /// How sockets are made. A mark sends the packets through the VIP.
    pub dialer: Dialer,
    /// What is known of the server itself while the VIP does not reach it.
    pub look: Arc<Memory>,
}

/// What a probe found, and when.
#[derive(Clone, Debug)]
pub struct Finding {
    result: ProbeResult,
    phase: &'static str,
    detail: String,
    at: Instant,
}

impl Finding {
    /// The server does its job.
    pub fn pass(phase: &'static str, detail: impl Into<String>) -> Self {
        Self::new(ProbeResult::Pass, phase, detail.into())
    }

    /// The server answers that it cannot take more now.
    pub fn busy(phase: &'static str, detail: impl Into<String>) -> Self {
        Self::new(ProbeResult::Busy, phase, detail.into())
    }

    /// The server does not do its job.
    pub fn fail(phase: &'static str, detail: impl Into<String>) -> Self {
        Self::new(ProbeResult::Fail, phase, detail.into())
    }

    fn new(result: ProbeResult, phase: &'static str, detail: String) -> Self {
        Finding { result, phase, detail: words::one_line(&detail), at: Instant::now() }
    }
}

/// `Ok` when the exchange came to its end (pass or busy), `Err` when it broke off.
pub type Verdict = Result<Finding, Finding>;

/// A request and its clock, as the protocols see it.
pub struct Exchange<'a> {
    /// What is probed.
    pub request: &'a Request,
    /// When the exchange must be over.
    pub deadline: Instant,
    /// The check's time-out, for words.
    pub timeout: Duration,
}

impl Exchange<'_> {
    /// Opens a TCP connection to the server, with TLS where asked. `name` is what the certificate
    /// must be valid for when the operator gave no `server_name`.
    pub async fn open(&self, tls: Option<&Tls>, name: &str) -> Result<Stream, Finding> {
        let to = SocketAddr::new(self.request.rip, self.request.port);
        let tcp = self.request.dialer.tcp(to, self.deadline, self.timeout).await?;
        match tls {
            None => Ok(Stream::Plain(tcp)),
            Some(tls) => tls::connect(tcp, tls, name, self).await,
        }
    }

    /// The server's own address, the name that TLS verifies when there is no other.
    pub fn address(&self) -> String {
        self.request.rip.to_string()
    }

    /// "within 3 s", for time-outs.
    pub fn within(&self) -> String {
        format!("within {}", words::span(self.timeout))
    }
}

/// Runs one probe. Never panics and never takes much longer than the check's time-out.
pub async fn run(request: &Request, check: &HealthCheck) -> Outcome {
    let started = Instant::now();
    let exchange = Exchange { request, deadline: started + check.timeout, timeout: check.timeout };
    let late = || {
        let detail = format!("no result {}", exchange.within());
        Finding { at: exchange.deadline, ..Finding::fail("deadline", detail) }
    };
    let finding = match patiently(&exchange, check).await {
        Some(Ok(finding) | Err(finding)) => finding,
        None => late(),
    };
    let duration = finding.at - started;
    let finding = look::explain_vip(&exchange, check, finding).await;
    let Finding { result, phase, detail, .. } = finding;
    Outcome { result, phase, detail, duration, at: SystemTime::now() }
}

/// Every protocol keeps to the deadline; should one not, this ends it. A script bounds itself, from
/// when there is room for it to run.
async fn patiently(exchange: &Exchange<'_>, check: &HealthCheck) -> Option<Verdict> {
    let speaking = speak(exchange, check);
    if matches!(check.kind, CheckKind::External { .. }) {
        return Some(speaking.await);
    }
    tokio::time::timeout_at(exchange.deadline + LEAVE, speaking).await.ok()
}

async fn speak(exchange: &Exchange<'_>, check: &HealthCheck) -> Verdict {
    match &check.kind {
        CheckKind::None => Ok(Finding::pass("none", "not checked")),
        CheckKind::Connect => connect::check(exchange).await,
        CheckKind::DicomEcho { calling_ae, called_ae, tls, accept_association, .. } => {
            let accept_association = *accept_association;
            let echo = dicom_echo::Echo { calling_ae, called_ae, accept_association };
            dicom_echo::check(exchange, tls.as_ref(), &echo).await
        }
        CheckKind::Mllp { message, tls } => {
            mllp::check(exchange, tls.as_ref(), message.as_ref()).await
        }
        CheckKind::Http { tls, path, method, host, status, body } => {
            let (tls, host, body) = (tls.as_ref(), host.as_deref(), body.as_deref());
            http::check(exchange, &http::Http { tls, path, method, host, status, body }).await
        }
        CheckKind::Ldap { tls, bind_dn, password_file, base } => {
            let (tls, base) = (tls.as_ref(), base.as_deref());
            let password_file = password_file.as_deref();
            ldap::check(exchange, &ldap::Ldap { tls, bind_dn, password_file, base }).await
        }
        CheckKind::Mssql { prelogin } => mssql::check(exchange, *prelogin).await,
        CheckKind::Ping { count } => ping::check(exchange, *count).await,
        CheckKind::External { command, user } => external::check(exchange, command, user).await,
    }
}
