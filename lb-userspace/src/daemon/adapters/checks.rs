//! The health checks behind their seam.

use std::collections::HashMap;

use tokio::sync::mpsc;

use crate::admin::ServerLabel;
use crate::config::model::Config;
use crate::daemon::seams::{self, HealthEvent, Later};
use crate::health::runner::{Handle, Options, Runner, Target};
use crate::health::{Outcome, View};

/// The runner.
pub struct Checks(Handle);

/// Starts the runner, without targets yet.
pub fn start() -> (Checks, mpsc::UnboundedReceiver<HealthEvent>) {
    let (handle, mut events) = Runner::start(Options::default());
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
