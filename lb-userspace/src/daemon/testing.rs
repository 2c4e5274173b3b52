//! A configuration and stand-ins for the rooms around the event loop.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Loaded;
use super::seams::*;
use super::state::{Daemon, Rooms};
use crate::admin::{AdminState, ServerLabel, Store};
use crate::api::model::{Connections, Finding, Interface, PersistenceList, TableStats, Traffic};
use crate::api::protocol::Filter;
use crate::config::model;
use crate::config::model::{CheckKind, Config, Global, HealthCheck, RealServer, Service};
use crate::health::{Health, Outcome, ProbeResult, View};

pub fn server(label: &str, last: u8) -> RealServer {
    RealServer {
        label: label.into(),
        address: IpAddr::from([10, 12, 1, last]),
        port: None,
        weight: 100,
        minimum_connections: 0,
        maximum_connections: 0,
        backup: false,
        slow_start: Duration::ZERO,
        health_check: Arc::new(HealthCheck {
            name: Some("dw1".into()),
            kind: CheckKind::Connect,
            interval: Duration::from_secs(6),
            timeout: Duration::from_secs(3),
            rise: 2,
            fall: 3,
            port: None,
            via_rip: false,
        }),
    }
}

pub fn service(label: &str, real_servers: Vec<RealServer>) -> Service {
    Service {
        label: label.into(),
        address: "10.12.1.100".parse().unwrap(),
        ports: vec![104..=104, 11112..=11112],
        ports_text: "104,11112".into(),
        protocol: model::Protocol::Tcp,
        forwarding_method: model::ForwardingMethod::Dr,
        scheduler: model::Scheduler::Wlc,
        mode: model::ServiceMode::LoadBalanced,
        persistence: None,
        source_address: None,
        idle_timeout: Duration::from_secs(7440),
        udp_idle_timeout: Duration::from_secs(300),
        fallback_server: None,
        on_down: model::OnDown { reset_established: true, keep_persistence: false },
        drain_keep_persistent: false,
        manage_address: true,
        enabled: true,
        real_servers,
    }
}

pub fn config(state_dir: &Path, services: Vec<Service>) -> Config {
    Config {
        interfaces: vec![model::Interface { name: "eth0".into(), xdp_mode: model::XdpMode::Auto }],
        global: Global {
            socket: state_dir.join("medlb.sock"),
            socket_group: None,
            state_dir: state_dir.into(),
            pin_dir: state_dir.join("pins"),
            maximum_flows: 262_144,
            maximum_half_open: 65_536,
            snat_ports: 61_000..=65_535,
        },
        services,
        outbound_snat: Vec::new(),
        hash: "c0ffee".into(),
    }
}

/// The service of interface.md's sample, with two servers.
pub fn sample(state_dir: &Path) -> Config {
    let servers = vec![server("DICOM1", 110), server("DICOM2", 111)];
    config(state_dir, vec![service("DICOM-Modalities", servers)])
}

pub fn label(real: &str) -> ServerLabel {
    ("DICOM-Modalities".into(), real.into())
}

pub fn view(health: Health) -> View {
    let at = humantime::parse_rfc3339("2026-11-20T10:00:00Z").unwrap();
    let outcome = Outcome {
        result: if health == Health::Up { ProbeResult::Pass } else { ProbeResult::Fail },
        phase: "connect",
        detail: "connection refused".into(),
        duration: Duration::from_micros(3100),
        at,
    };
    let history = if health == Health::Unknown { vec![] } else { vec![outcome] };
    View { health, busy_drain: false, changed_at: at, history, next_check: None }
}

pub fn event(real: &str, old: Health, new: Health) -> HealthEvent {
    HealthEvent { server: label(real), old, view: view(new) }
}

/// What a [`FakePlane`] was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// None: everything.
    pub servers: Option<Vec<ServerLabel>>,
    pub hash: String,
    pub health: HashMap<ServerLabel, Health>,
    pub admin: HashMap<ServerLabel, AdminState>,
}

#[derive(Clone, Default)]
pub struct FakePlane {
    pub told: Arc<Mutex<Vec<Told>>>,
    /// How many of the next calls fail.
    pub failures: Arc<Mutex<usize>>,
}

impl Plane for FakePlane {
    fn apply(&mut self, inputs: &Inputs<'_>, scope: Scope<'_>) -> anyhow::Result<Applied> {
        self.told.lock().unwrap().push(Told {
            servers: match scope {
                Scope::Everything => None,
                Scope::Servers(servers) => Some(servers.to_vec()),
            },
            hash: inputs.config.hash.clone(),
            health: inputs.health.iter().map(|(l, v)| (l.clone(), v.health)).collect(),
            admin: inputs.admin.clone(),
        });
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            anyhow::bail!("the kernel refuses");
        }
        Ok(Applied::default())
    }

    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        let traffic = Traffic { packets_in: 10, active_connections: 2, ..Traffic::default() };
        Ok(Snapshot {
            reals: [(label("DICOM1"), traffic)].into(),
            services: [("DICOM-Modalities".into(), traffic)].into(),
            drops: [("DICOM-Modalities".into(), [("no_usable_server".into(), 0)].into())].into(),
            verdicts: ["transmitted", "not_ours", "flow_table_full"].map(|v| (v.into(), 0)).into(),
            tables: [("flows_v4".into(), TableStats { entries: 0, capacity: 262_144 })].into(),
            ..Snapshot::default()
        })
    }

    fn active(&self, _: &Service, _: &RealServer) -> anyhow::Result<u64> {
        Ok(2)
    }

    fn interfaces(&self) -> Vec<Interface> {
        vec![Interface { name: "eth0".into(), xdp_mode: "native".into() }]
    }

    fn sweep(&mut self) -> Job<()> {
        Box::new(|| Ok(()))
    }

    fn connections(&self, _: Filter) -> Job<Connections> {
        Box::new(|| Ok(Connections::default()))
    }

    fn persistence(&self, _: Filter) -> Job<PersistenceList> {
        Box::new(|| Ok(PersistenceList::default()))
    }
}

#[derive(Clone, Default)]
pub struct FakeNetwork {
    /// `watch HASH` and `vips HASH`, as they came.
    pub told: Arc<Mutex<Vec<String>>>,
}

impl Network for FakeNetwork {
    fn watch(&mut self, config: &Config) {
        self.told.lock().unwrap().push(format!("watch {}", config.hash));
    }

    fn set_vips(&mut self, config: &Config) -> Later<()> {
        self.told.lock().unwrap().push(format!("vips {}", config.hash));
        Box::pin(std::future::ready(()))
    }

    fn doctor(&self, _: &Config) -> Later<Vec<Finding>> {
        Box::pin(async { vec![Finding::ok("rp_filter", "0")] })
    }

    fn interface_name(&self, _: u32) -> Option<String> {
        Some("eth0".into())
    }
}

#[derive(Clone, Default)]
pub struct FakeChecks {
    pub views: Arc<Mutex<HashMap<ServerLabel, View>>>,
    pub followed: Arc<Mutex<Vec<String>>>,
}

impl Checks for FakeChecks {
    fn follow(&mut self, config: &Config) {
        self.followed.lock().unwrap().push(config.hash.clone());
    }

    fn views(&self) -> HashMap<ServerLabel, View> {
        self.views.lock().unwrap().clone()
    }

    fn view(&self, service: &str, real: &str) -> Option<View> {
        self.views.lock().unwrap().get(&(service.into(), real.into())).cloned()
    }

    fn check_now(&self, service: &str, real: &str) -> Later<Option<(Outcome, View)>> {
        let view = self.views.lock().unwrap().get(&(service.into(), real.into())).cloned();
        Box::pin(async move { view.map(|view| (view.history[0].clone(), view)) })
    }
}

pub type TestDaemon = Daemon<FakePlane, FakeNetwork, FakeChecks>;

/// A daemon around stand-ins, and the file that its next reload reads.
pub struct Rig {
    pub daemon: TestDaemon,
    pub plane: FakePlane,
    pub network: FakeNetwork,
    pub checks: FakeChecks,
    pub next: Arc<Mutex<Result<Loaded, String>>>,
    pub dir: tempfile::TempDir,
}

impl Rig {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = sample(dir.path());
        let loaded = Loaded { config: config.clone(), warnings: vec![] };
        let next = Arc::new(Mutex::new(Ok(loaded)));
        let file = next.clone();
        let (plane, network, checks) =
            (FakePlane::default(), FakeNetwork::default(), FakeChecks::default());
        let rooms =
            Rooms { plane: plane.clone(), network: network.clone(), checks: checks.clone() };
        let store = Store::open(dir.path()).unwrap();
        let load = Box::new(move || file.lock().unwrap().clone());
        let daemon = Daemon::new(config, "/etc/medlb.yaml".into(), load, store, rooms);
        Self { daemon, plane, network, checks, next, dir }
    }

    pub fn up(&mut self) {
        for real in ["DICOM1", "DICOM2"] {
            self.checks.views.lock().unwrap().insert(label(real), view(Health::Up));
            self.daemon.on_health(vec![event(real, Health::Unknown, Health::Up)]);
        }
    }

    pub fn last_told(&self) -> Told {
        self.plane.told.lock().unwrap().last().unwrap().clone()
    }
}
