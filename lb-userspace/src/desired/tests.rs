use std::net::Ipv4Addr;
use std::path::PathBuf;

use lb_common::abi::Select;

use super::*;
use crate::config::model::{
    CheckKind, FallbackServer, Global, HealthCheck, OnDown, RealServer, Scheduler, ServiceMode,
};

/// A configuration with one service and servers `r0`, `r1`, … of the given weights.
pub fn config(weights: &[u16]) -> Config {
    let check = Arc::new(HealthCheck {
        name: None,
        kind: CheckKind::Connect,
        interval: Duration::from_secs(6),
        timeout: Duration::from_secs(3),
        rise: 2,
        fall: 3,
        port: None,
        via_rip: false,
    });
    let server = |(i, weight): (usize, &u16)| RealServer {
        label: format!("r{i}"),
        address: Ipv4Addr::new(10, 0, 0, 10 + i as u8).into(),
        port: None,
        weight: *weight,
        minimum_connections: 0,
        maximum_connections: 0,
        backup: false,
        slow_start: Duration::ZERO,
        health_check: check.clone(),
    };
    Config {
        interfaces: Vec::new(),
        global: Global {
            socket: PathBuf::new(),
            socket_group: None,
            state_dir: PathBuf::new(),
            pin_dir: PathBuf::new(),
            maximum_flows: 262_144,
            maximum_half_open: 65_536,
            snat_ports: 61_000..=65_535,
        },
        services: vec![model::Service {
            label: "DICOM".into(),
            address: Ipv4Addr::new(10, 0, 0, 1).into(),
            ports: vec![104..=104, 11_112..=11_112],
            ports_text: "104,11112".into(),
            protocol: Protocol::Tcp,
            forwarding_method: ForwardingMethod::Dr,
            scheduler: Scheduler::Wlc,
            mode: ServiceMode::LoadBalanced,
            persistence: None,
            source_address: None,
            idle_timeout: Duration::from_secs(7440),
            udp_idle_timeout: Duration::from_secs(300),
            fallback_server: None,
            on_down: OnDown { reset_established: true, keep_persistence: false },
            drain_keep_persistent: false,
            manage_address: true,
            enabled: true,
            real_servers: weights.iter().enumerate().map(server).collect(),
        }],
        outbound_snat: Vec::new(),
        hash: String::new(),
    }
}

/// All that can be known of the servers of [`config`].
pub struct World {
    pub config: Config,
    pub health: HashMap<ServerId, View>,
    pub admin: HashMap<ServerId, Admin>,
    pub paths: HashMap<IpAddr, Path>,
    pub adopted: HashMap<ServerId, u32>,
    pub now: SystemTime,
}

fn server(i: usize) -> ServerId {
    ("DICOM".into(), format!("r{i}"))
}

impl World {
    /// All servers up for an hour, with known neighbours.
    pub fn new(weights: &[u16]) -> Self {
        let config = config(weights);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut world = Self {
            health: HashMap::new(),
            admin: HashMap::new(),
            paths: HashMap::new(),
            adopted: HashMap::new(),
            now,
            config,
        };
        for i in 0..weights.len() {
            world.set(i, Health::Up, Duration::from_secs(3600));
            world.know(i);
        }
        world
    }

    pub fn know(&mut self, i: usize) {
        let path = Path {
            ifindex: 2,
            vlan: 0,
            src_mac: [2, 0, 0, 0, 0, 1],
            dst_mac: Some([2, 0, 0, 0, 1, i as u8]),
            on_link: true,
            source: Some(Ipv4Addr::new(10, 0, 0, 2).into()),
        };
        self.paths.insert(self.config.services[0].real_servers[i].address, path);
    }

    pub fn set(&mut self, i: usize, health: Health, since: Duration) {
        let view = View {
            health,
            busy_drain: false,
            changed_at: self.now - since,
            history: Vec::new(),
            next_check: None,
        };
        self.health.insert(server(i), view);
    }

    pub fn desired(&self) -> Desired {
        desired(&Inputs {
            config: &self.config,
            health: &self.health,
            admin: &self.admin,
            paths: &self.paths,
            links: &[Link { ifindex: 2, mac: [2, 0, 0, 0, 0, 1], mtu: 1500 }],
            adopted: &self.adopted,
            now: self.now,
        })
    }

    fn service(&mut self) -> &mut model::Service {
        &mut self.config.services[0]
    }

    fn slots(&self) -> Slots {
        self.desired().services[0].slots.clone()
    }

    fn effective(&self) -> Vec<(Effective, u32)> {
        self.desired().services[0].reals.iter().map(|r| (r.effective, r.flags)).collect()
    }
}

const IN: (Effective, u32) = (Effective::InRotation, real_flags::ACCEPT);
const DRAINING: (Effective, u32) = (Effective::Draining, 0);
const OUT: (Effective, u32) = (Effective::Out, real_flags::RESET);

#[test]
fn a_failed_server_is_out_and_resets_unless_told_to_keep() {
    let mut world = World::new(&[1, 1]);
    world.set(1, Health::Down, Duration::ZERO);
    assert_eq!(world.effective(), [IN, OUT]);
    assert_eq!(world.slots().entries, [(0, 1)]);
    world.set(1, Health::Rising { n: 1 }, Duration::ZERO);
    assert_eq!(world.effective(), [IN, OUT]);
    world.set(1, Health::Falling { n: 2 }, Duration::ZERO);
    assert_eq!(world.effective(), [IN, IN]);
    world.set(1, Health::Down, Duration::ZERO);
    world.service().on_down.reset_established = false;
    assert_eq!(world.effective(), [IN, (Effective::Out, 0)]);
}

#[test]
fn drain_halt_busy_and_weight_0_take_no_new_connections() {
    let mut world = World::new(&[1, 1, 1, 0]);
    world.admin.insert(server(0), Admin::Drain);
    world.admin.insert(server(1), Admin::Halt);
    world.health.get_mut(&server(2)).unwrap().busy_drain = true;
    assert_eq!(world.effective(), [DRAINING, OUT, DRAINING, DRAINING]);
    assert!(world.slots().entries.is_empty());
    world.service().drain_keep_persistent = true;
    let persistent = (Effective::Draining, real_flags::ACCEPT_PERSISTENT);
    assert_eq!(world.effective(), [persistent, OUT, persistent, persistent]);
}

#[test]
fn before_any_judgement_all_servers_serve_and_afterwards_only_those_that_passed() {
    let mut world = World::new(&[1, 1]);
    world.health.clear();
    assert_eq!(world.effective(), [IN, IN]);
    world.set(0, Health::Up, Duration::ZERO);
    assert_eq!(world.effective(), [IN, DRAINING]);
}

#[test]
fn adopted_servers_keep_their_state_until_they_are_judged() {
    let mut world = World::new(&[1, 1, 1]);
    world.health.clear();
    world.adopted.insert(server(0), real_flags::ACCEPT | real_flags::NEIGHBOUR);
    world.adopted.insert(server(1), real_flags::RESET | real_flags::NEIGHBOUR);
    assert_eq!(world.effective(), [IN, OUT, IN]);
    world.set(2, Health::Up, Duration::ZERO);
    assert_eq!(world.effective(), [IN, OUT, IN]);
    world.set(0, Health::Down, Duration::ZERO);
    assert_eq!(world.effective(), [OUT, OUT, IN]);
}

#[test]
fn least_connection_carries_weights_and_lc_does_not() {
    let mut world = World::new(&[100, 50]);
    let least = |entries: &[(usize, u32)]| Slots { select: Select::LEAST, entries: entries.into() };
    assert_eq!(world.slots(), least(&[(0, 100), (1, 50)]));
    world.service().scheduler = Scheduler::Lc;
    assert_eq!(world.slots(), least(&[(0, 1), (1, 1)]));
}

#[test]
fn round_robin_is_a_sequence() {
    let mut world = World::new(&[2, 1]);
    world.service().scheduler = Scheduler::Wrr;
    let order = |slots: Slots| slots.entries.iter().map(|e| e.0).collect::<Vec<_>>();
    assert_eq!(world.slots().select, Select::CURSOR);
    assert_eq!(order(world.slots()), [0, 1, 0]);
    world.service().scheduler = Scheduler::Rr;
    assert_eq!(order(world.slots()), [0, 1]);
}

#[test]
fn source_hash_moves_only_the_failed_servers_clients() {
    let mut world = World::new(&[1, 2, 1, 1]);
    world.service().scheduler = Scheduler::Sh;
    let before = world.slots().entries;
    world.set(1, Health::Down, Duration::ZERO);
    let after = world.slots().entries;
    assert_eq!(before.len(), after.len());
    for (b, a) in before.iter().zip(&after) {
        assert!(a == b || b.0 == 1 && a.0 != 1, "{b:?} {a:?}");
    }
}

#[test]
fn maglev_keeps_its_size_when_a_server_fails() {
    let mut world = World::new(&[1; 16]);
    world.service().scheduler = Scheduler::Maglev;
    let before = world.slots().entries;
    world.set(3, Health::Down, Duration::ZERO);
    let after = world.slots().entries;
    assert_eq!(before.len(), after.len());
    assert!(after.iter().all(|e| e.0 != 3));
}

#[test]
fn backups_wait_and_failover_takes_the_file_order_with_backups_last() {
    let mut world = World::new(&[1, 1, 1]);
    world.service().real_servers[0].backup = true;
    assert_eq!(world.slots().entries, [(1, 1), (2, 1)]);
    world.set(1, Health::Down, Duration::ZERO);
    world.set(2, Health::Down, Duration::ZERO);
    assert_eq!(world.slots().entries, [(0, 1)]);
    let mut world = World::new(&[1, 1, 1]);
    world.service().real_servers[0].backup = true;
    world.service().mode = ServiceMode::Failover;
    assert_eq!(world.slots().entries, [(1, 1), (2, 1), (0, 1)]);
    assert_eq!(world.slots().select, Select::FIRST);
}

#[test]
fn a_slow_starter_grows_and_asks_to_be_seen_again() {
    let mut world = World::new(&[1, 1]);
    world.service().real_servers[1].slow_start = Duration::from_secs(60);
    world.set(1, Health::Up, Duration::from_secs(30));
    assert_eq!(world.slots().entries, [(0, 100), (1, 50)]);
    assert!(world.desired().again_in.is_some());
    world.set(1, Health::Up, Duration::from_secs(60));
    assert_eq!(world.slots().entries, [(0, 1), (1, 1)]);
    assert!(world.desired().again_in.is_none());
}

#[test]
fn a_server_without_a_neighbour_waits_for_it_unless_it_is_alone() {
    let mut world = World::new(&[1, 1]);
    let address = world.config.services[0].real_servers[1].address;
    world.paths.get_mut(&address).unwrap().dst_mac = None;
    assert_eq!(world.slots().entries, [(0, 1)]);
    world.paths.clear();
    assert_eq!(world.slots().entries, [(0, 1), (1, 1)]);
}

#[test]
fn dr_needs_a_server_on_link_and_snat_takes_the_kernels_source() {
    let mut world = World::new(&[1]);
    for path in world.paths.values_mut() {
        path.on_link = false;
    }
    assert_eq!(world.desired().services[0].reals[0].hop, None);
    world.service().forwarding_method = ForwardingMethod::Snat;
    let service = &world.desired().services[0];
    assert_eq!(service.reals[0].hop.unwrap().mtu, 1500);
    assert_eq!(service.source, Some(Ipv4Addr::new(10, 0, 0, 2).into()));
    world.service().source_address = Some(Ipv4Addr::new(10, 0, 0, 3).into());
    assert_eq!(world.desired().services[0].source, Some(Ipv4Addr::new(10, 0, 0, 3).into()));
}

#[test]
fn the_fallback_server_is_no_slot_but_has_a_place() {
    let mut world = World::new(&[1]);
    let address = Ipv4Addr::new(10, 0, 0, 250).into();
    world.service().fallback_server = Some(FallbackServer { address, port: Some(80) });
    let service = &world.desired().services[0];
    assert_eq!(service.fallback, Some(1));
    assert!(service.reals[1].key.fallback);
    assert_eq!(service.slots.entries, [(0, 1)]);
}

#[test]
fn a_disabled_service_is_absent() {
    let mut world = World::new(&[1]);
    world.service().enabled = false;
    assert!(world.desired().services.is_empty());
}
