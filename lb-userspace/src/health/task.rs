//! The task of one check: sleep, probe, let the runner's state judge, again.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::debug;

use super::probe::dial::Dialer;
use super::probe::{self, Memory, Request};
use super::runner::{MarkFor, State, lock};
use super::target::Target;
use super::{Outcome, ProbeResult};
use crate::config::model::CheckKind;

/// One check's task.
pub struct Task {
    /// Where outcomes go; gone once all handles of the runner are.
    pub state: Weak<Mutex<State>>,
    /// The check's key in the state.
    pub key: String,
    /// The check's number in the state: a key can come back for another check.
    pub id: u64,
    /// What to check; of several servers that share the check, one.
    pub target: Target,
    /// For checks through the VIP.
    pub mark_for: Option<MarkFor>,
    /// Carried from probe to probe.
    pub look: Arc<Memory>,
}

impl Task {
    /// Probes at `first` and from then on as the machine says, and whenever an order comes in.
    /// Ends when no more orders can come.
    pub async fn run(
        self,
        mut inbox: mpsc::UnboundedReceiver<oneshot::Sender<Outcome>>,
        first: Instant,
    ) {
        let once = matches!(self.target.check.kind, CheckKind::None);
        let mut next = first;
        let mut rested = false;
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                () = tokio::time::sleep_until(next), if !(once && rested) => {}
                order = inbox.recv() => match order {
                    Some(reply) => waiting.push(reply),
                    None => return,
                },
            }
            while let Ok(reply) = inbox.try_recv() {
                waiting.push(reply);
            }
            let started = Instant::now();
            let outcome = self.probe().await;
            let Some(state) = self.state.upgrade() else { return };
            let Some(then) = lock(&state).record(&self.key, self.id, &outcome, started) else {
                return;
            };
            (next, rested) = (then, true);
            for reply in waiting {
                reply.send(outcome.clone()).ok();
            }
        }
    }

    /// The mark is asked for anew each time: the data plane may have changed what marks mean.
    fn request(&self) -> Request {
        let target = &self.target;
        Request {
            service: target.service.clone(),
            real: target.real.clone(),
            rip: target.rip,
            port: target.port,
            vip: target.vip,
            vip_port: target.vip_port,
            rpt: target.rpt,
            dialer: Dialer {
                mark: self.mark_for.as_ref().and_then(|mark_for| mark_for(target)),
                source: None,
            },
            look: self.look.clone(),
        }
    }

    async fn probe(&self) -> Outcome {
        let Target { service, real, rip, port, check, .. } = &self.target;
        let request = self.request();
        // A fault in one protocol's code must not end the checks of a server for good.
        let run = AssertUnwindSafe(probe::run(&request, check)).catch_unwind();
        let outcome = run.await.unwrap_or_else(|_| Outcome {
            result: ProbeResult::Fail,
            phase: "internal",
            detail: "the check itself failed: please report this, with the log".into(),
            duration: Duration::ZERO,
            at: SystemTime::now(),
        });
        debug!(%service, server = %real, %rip, port, result = ?outcome.result, phase = outcome.phase,
            detail = %outcome.detail, duration = ?outcome.duration, "probe");
        outcome
    }
}
