//! A second look at a server that cannot be reached through the VIP: does it answer on its own
//! address? Then it is the VIP that is missing there, which is worth saying.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::dial::Dialer;
use super::{Exchange, Finding, Request, ping};
use crate::config::model::{CheckKind, HealthCheck};
use crate::health::ProbeResult;

/// How long the answer of a server holds. A look is a bare connection, and a PACS logs every one.
const HOLDS: Duration = Duration::from_secs(600);

/// When a check's server last answered on its own address while the VIP was missing.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Option<Instant>>);

impl Memory {
    /// How long ago it answered; none if it must be asked (again).
    fn answered(&self) -> Option<Duration> {
        let last = *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        last.map(|at| at.elapsed()).filter(|age| *age < HOLDS)
    }

    fn set(&self, answered: Option<Instant>) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = answered;
    }
}

/// Adds to the detail of a failure what a look at the server itself says.
pub async fn explain_vip(
    exchange: &Exchange<'_>,
    check: &HealthCheck,
    mut finding: Finding,
) -> Finding {
    let Request { rip, vip, dialer, look, .. } = exchange.request;
    if dialer.mark.is_none() {
        return finding;
    }
    let unreached = match check.kind {
        CheckKind::Ping { .. } => finding.phase == ping::PHASE,
        _ => finding.phase == "connect",
    };
    if finding.result != ProbeResult::Fail || !unreached {
        look.set(None);
        return finding;
    }
    let before = look.answered();
    if before.is_none() {
        let answers = answers_itself(exchange, check).await;
        look.set(answers.then(Instant::now));
        if !answers {
            finding.detail =
                format!("{} (through the VIP {vip}, and on {rip} itself)", finding.detail);
            return finding;
        }
    }
    let when = match before.map(|age| age.as_secs()) {
        None => format!("answers on {rip}"),
        Some(seconds) => format!("answered on {rip} {seconds} s ago"),
    };
    finding.detail = format!(
        "{} through the VIP, though the server {when}: is the VIP {vip} bound on its loopback?",
        finding.detail
    );
    finding
}

/// Whether the server can be reached without the VIP.
async fn answers_itself(exchange: &Exchange<'_>, check: &HealthCheck) -> bool {
    let timeout = exchange.timeout.min(Duration::from_secs(1));
    let dialer = Dialer { mark: None, ..exchange.request.dialer.clone() };
    let request = Request { dialer, ..exchange.request.clone() };
    let direct = Exchange { request: &request, deadline: Instant::now() + timeout, timeout };
    if let CheckKind::Ping { .. } = check.kind {
        return ping::check(&direct, 1).await.is_ok();
    }
    match direct.open(None, "").await {
        Ok(stream) => {
            stream.close().await;
            true
        }
        Err(_) => false,
    }
}
