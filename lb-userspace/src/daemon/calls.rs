//! Answers what comes over the control socket.

use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;
use tracing::info;

use super::seams::{Checks, Job, Network, Plane, Scope};
use super::state::{Daemon, mac_text};
use super::{doctor, view, words};
use crate::admin::AdminState;
use crate::api::model::{AdminChanged, Checked, Explanation, Hop, Status};
use crate::api::names;
use crate::api::protocol::{Answer, Command, Failure, FailureKind, Filter, Server, answer};
use crate::api::server::Call;
use crate::config::model::{RealServer, Service};

fn failed(error: anyhow::Error) -> Failure {
    Failure::new(FailureKind::Failed, format!("{error:#}"))
}

impl<P: Plane, N: Network, C: Checks> Daemon<P, N, C> {
    /// Answers at once, or starts what will.
    pub fn on_call(&mut self, call: Call) {
        let Call { command, reply, uid } = call;
        let answer = match command {
            Command::Status => self.status(),
            Command::Stats => self.stats(),
            Command::Reload => self.reload().and_then(|reloaded| answer(&reloaded)),
            Command::Drain(server) => self.set_admin(&server, AdminState::Drain, uid),
            Command::Halt(server) => self.set_admin(&server, AdminState::Halt, uid),
            Command::Online(server) => self.set_admin(&server, AdminState::Online, uid),
            Command::Explain(server) => match self.explain(&server) {
                Ok(explanation) => return self.explain_later(explanation, reply),
                Err(failure) => Err(failure),
            },
            Command::Connections(filter) => match self.known(&filter) {
                Ok(()) => return later(self.rooms.plane.connections(filter), reply),
                Err(failure) => Err(failure),
            },
            Command::Persistence(filter) => match self.known(&filter) {
                Ok(()) => return later(self.rooms.plane.persistence(filter), reply),
                Err(failure) => Err(failure),
            },
            Command::CheckNow(server) => match self.check_now(&server, reply) {
                Ok(()) => return,
                Err((failure, reply)) => {
                    reply.send(Err(failure)).ok(); // the client has gone
                    return;
                }
            },
            Command::Doctor => return self.doctor(reply),
        };
        reply.send(answer).ok(); // the client has gone
    }

    /// Health as it is now, with the latest outcomes: events tell of changes only.
    fn refresh_views(&mut self) {
        self.health = self.rooms.checks.views();
        self.forget_absent();
    }

    fn status(&mut self) -> Answer {
        self.refresh_views();
        let snapshot = self.rooms.plane.snapshot().map_err(failed)?;
        answer(&Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            config_hash: self.config.hash.clone(),
            config_path: self.config_path.display().to_string(),
            heartbeat_age_ms: u64::try_from(self.heartbeat.elapsed().as_millis())
                .unwrap_or(u64::MAX),
            interfaces: self.rooms.plane.interfaces(),
            services: view::services(&self.inputs(), &snapshot),
            notes: self.notes(),
        })
    }

    fn stats(&mut self) -> Answer {
        let snapshot = self.rooms.plane.snapshot().map_err(failed)?;
        answer(&view::stats(&self.inputs(), &snapshot))
    }

    fn set_admin(&mut self, server: &Server, state: AdminState, uid: Option<u32>) -> Answer {
        let (service, real) = self.lookup(server)?;
        let (service, real) = (service.clone(), real.clone());
        let now = SystemTime::now();
        let before = self.store.set(&service.label, &real, state, now).map_err(failed)?;
        self.admin = self.store.states();
        let label = view::label(&service, &real);
        if before != state {
            info!(service = %label.0, real = %label.1, from = before.word(), to = state.word(), uid,
                "administrative state changed");
        }
        self.apply(Scope::Servers(std::slice::from_ref(&label))).map_err(|error| {
            failed(error.context("recorded, but the data plane does not follow yet; trying again"))
        })?;
        let active = self.rooms.plane.active(&service, &real).map_err(failed)?;
        answer(&AdminChanged {
            service: label.0,
            real_server: label.1,
            from: before.word().into(),
            to: state.word().into(),
            active_connections: active,
        })
    }

    fn explain(&mut self, server: &Server) -> Result<Explanation, Failure> {
        self.lookup(server)?;
        self.refresh_views();
        let snapshot = self.rooms.plane.snapshot().map_err(failed)?;
        let (service, real) = self.lookup(server)?;
        let inputs = self.inputs();
        let label = view::label(service, real);
        let judgement = view::judgement(service, real, &inputs);
        let shown = view::real_server(service, real, &judgement, &inputs, &snapshot);
        let known = self.rooms.checks.view(&label.0, &label.1);
        let path = self.paths.get(&real.address).and_then(|next| next.path);
        Ok(Explanation {
            service: label.0.clone(),
            real_server: shown,
            reasons: judgement.reasons,
            check: words::check(&real.health_check),
            next_check: known.as_ref().and_then(|view| view.next_check).map(view::time),
            history: known.as_ref().map_or_else(Vec::new, |view| {
                view.history.iter().rev().map(view::last_check).collect()
            }),
            admin_since: self.store.entry(&label.0, &label.1).map(|entry| view::time(entry.since)),
            path: path.map(|path| Hop {
                interface: self
                    .rooms
                    .network
                    .interface_name(path.ifindex)
                    .unwrap_or_else(|| format!("interface {}", path.ifindex)),
                mac: path.dst_mac.map(mac_text),
                on_link: path.on_link,
            }),
            traffic: snapshot.reals.get(&label).copied().unwrap_or_default(),
            maximum_connections: real.maximum_connections,
            minimum_connections: real.minimum_connections,
            persistence_entries: service.persistence.is_some().then_some(0),
        })
    }

    /// Counts the persistence entries, which may be many, and answers.
    fn explain_later(&self, mut explanation: Explanation, reply: oneshot::Sender<Answer>) {
        if explanation.persistence_entries.is_none() {
            reply.send(answer(&explanation)).ok(); // the client has gone
            return;
        }
        let filter = Filter { service: Some(explanation.service.clone()), limit: Some(usize::MAX) };
        let entries = self.rooms.plane.persistence(filter);
        let job: Job<Explanation> = Box::new(move || {
            let server = &explanation.real_server.label;
            let own = entries()?.persistence.iter().filter(|e| e.real_server == *server).count();
            explanation.persistence_entries = Some(own as u64);
            Ok(explanation)
        });
        later(job, reply);
    }

    fn check_now(
        &self,
        server: &Server,
        reply: oneshot::Sender<Answer>,
    ) -> Result<(), (Failure, oneshot::Sender<Answer>)> {
        if let Err(failure) = self.lookup(server) {
            return Err((failure, reply));
        }
        let check = self.rooms.checks.check_now(&server.service, &server.real_server);
        let server = server.clone();
        tokio::spawn(async move {
            let answer = match check.await {
                Some((outcome, view)) => answer(&Checked {
                    service: server.service,
                    real_server: server.real_server,
                    check: view::last_check(&outcome),
                    health: view::health(Some(&view)).0.into(),
                }),
                None => Err(Failure::new(
                    FailureKind::NotFound,
                    "the configuration was changed while the check was under way: try again",
                )),
            };
            reply.send(answer).ok(); // the client has gone
        });
        Ok(())
    }

    fn doctor(&mut self, reply: oneshot::Sender<Answer>) {
        self.refresh_views();
        let mut findings = doctor::of_host(&self.config);
        findings.extend(doctor::of_daemon(
            &self.inputs(),
            &self.rooms.plane.interfaces(),
            &self.notes(),
        ));
        match self.rooms.plane.snapshot() {
            Ok(snapshot) => findings.extend(doctor::of_tables(&snapshot)),
            Err(error) => {
                reply.send(Err(failed(error))).ok(); // the client has gone
                return;
            }
        }
        let network = self.rooms.network.doctor(&self.config);
        tokio::spawn(async move {
            findings.extend(network.await);
            reply.send(answer(&findings)).ok(); // the client has gone
        });
    }

    /// The server that is meant, or what was probably meant.
    fn lookup(&self, server: &Server) -> Result<(&Service, &RealServer), Failure> {
        let service = self.service(&server.service)?;
        let real = service.real_servers.iter().find(|real| real.label == server.real_server);
        let real = real.ok_or_else(|| {
            let known: Vec<_> =
                service.real_servers.iter().map(|real| real.label.as_str()).collect();
            let what = format!("real server of {:?} called", service.label);
            Failure::new(FailureKind::NotFound, names::unknown(&what, &server.real_server, &known))
        })?;
        Ok((service, real))
    }

    fn service(&self, label: &str) -> Result<&Service, Failure> {
        let mut enabled = self.config.services.iter().filter(|service| service.enabled);
        enabled.clone().find(|service| service.label == label).ok_or_else(|| {
            let known: Vec<_> = enabled.by_ref().map(|service| service.label.as_str()).collect();
            Failure::new(FailureKind::NotFound, names::unknown("virtual service", label, &known))
        })
    }

    fn known(&self, filter: &Filter) -> Result<(), Failure> {
        filter.service.as_ref().map_or(Ok(()), |label| self.service(label).map(drop))
    }
}

/// Answers from a thread that may block: a listing of a million connections takes a while.
fn later<T: serde::Serialize + 'static>(job: Job<T>, reply: oneshot::Sender<Answer>) {
    tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        let answer = job().map_err(failed).and_then(|list| answer(&list));
        tracing::debug!(took = ?started.elapsed(), "listing");
        reply.send(answer).ok(); // the client has gone
    });
}
