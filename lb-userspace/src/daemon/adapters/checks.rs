//! The health checks behind their seam.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::admin::ServerLabel;
use crate::config::model::Config;
use crate::daemon::seams::{self, HealthEvent, Later};
use crate::dataplane::DataPlane;
use crate::health::runner::{Handle, Options, Runner, Target};
use crate::health::{Outcome, View};

/// The runner.
pub struct Checks(Handle);

/// Starts the runner, without targets yet. Checks of services in direct routing go through their
/// VIPs as far as the data plane can send them there.
pub fn start(plane: Arc<DataPlane>) -> (Checks, mpsc::UnboundedReceiver<HealthEvent>) {
    let mark_for = Arc::new(move |target: &Target| plane.check_mark(&target.service));
    let (handle, mut events) = Runner::start(Options { mark_for: Some(mark_for) });
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let server = (event.service, event.real);
            let event = HealthEvent { server, old: event.old, view: event.view };
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    (Checks(handle), receiver)
}

impl seams::Checks for Checks {
    fn follow(&mut self, config: &Config) {
        self.0.set_targets(Target::all(config));
    }

    fn views(&self) -> HashMap<ServerLabel, View> {
        self.0.brief_views()
    }

    fn view(&self, service: &str, real: &str) -> Option<View> {
        self.0.view(service, real)
    }

    fn check_now(&self, service: &str, real: &str) -> Later<Option<(Outcome, View)>> {
        let (handle, service, real) = (self.0.clone(), service.to_owned(), real.to_owned());
        Box::pin(async move {
            let outcome = handle.check_now(&service, &real).await?;
            Some((outcome, handle.view(&service, &real)?))
        })
    }
}
