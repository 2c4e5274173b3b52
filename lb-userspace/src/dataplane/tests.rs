//! The loaded object on veth pairs in network namespaces of their own. As root; they fail where
//! the object is missing.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lb_common::abi::{
    AddrV4, Be16, Connections, Flow, FlowKey, Meta, PersistKey, Persistence, flow_flags, mode,
    real_flags,
};
use lb_common::policy::tcp::state;

use super::attach::tests::FRAGS_REFUSED;
use super::load::Options;
use super::*;
use crate::config::model::{ForwardingMethod, Interface, XdpMode};
use crate::desired::tests::World;
use crate::desired::{Link, desired};

/// A network namespace with `n0`-`p0` and `n1`-`p1`, and a `pin_dir`, both of one test's own. The
/// namespace belongs to the test's thread and goes with it.
struct Lab {
    world: World,
    pin_dir: PathBuf,
}

static LABS: AtomicU32 = AtomicU32::new(0);

fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}");
}

impl Lab {
    fn new(weights: &[u16]) -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("the test runs as root");
        for i in 0..2 {
            run(&format!("ip link add n{i} type veth peer name p{i}"));
            run(&format!("ip link set n{i} up"));
            run(&format!("ip link set p{i} up"));
        }
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let name = format!("medlb-unit-{}-{number}", std::process::id());
        let pin_dir = PathBuf::from("/sys/fs/bpf").join(name);
        let mut world = World::new(weights);
        world.config.global.pin_dir = pin_dir.clone();
        world.config.global.maximum_flows = 4096;
        world.config.global.maximum_half_open = 1024;
        world.config.interfaces = vec![interface("n0")];
        Self { world, pin_dir }
    }

    fn open(&self) -> (DataPlane, Vec<String>) {
        DataPlane::open(&self.world.config).unwrap()
    }

    fn fail(&self) -> String {
        match DataPlane::open(&self.world.config) {
            Ok(_) => panic!("it opened"),
            Err(error) => format!("{error:#}"),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let removed = teardown(&self.pin_dir);
        if !std::thread::panicking() {
            removed.unwrap();
            assert!(!self.pin_dir.exists());
        }
    }
}

fn interface(name: &str) -> Interface {
    Interface { name: name.into(), xdp_mode: XdpMode::Auto }
}

fn xdp(name: &str) -> Option<link::Attached> {
    link::query(link::By::Name(name)).unwrap().unwrap().xdp
}

#[test]
fn a_driver_that_refuses_jumbo_frames_runs_the_program_without_them() {
    let lab = Lab::new(&[1]);
    FRAGS_REFUSED.set(true);
    let (plane, notes) = lab.open();
    assert!(plane.attachments()[0].native);
    assert!(notes.len() == 1 && notes[0].starts_with("n0 takes no jumbo frames"), "{notes:?}");
    let linear = xdp("n0").unwrap().program;
    drop(plane);
    // The next daemon can neither; one on another kernel can, and changes over in the same link.
    let (plane, _) = lab.open();
    assert!(plane.was_adopted());
    assert_ne!(xdp("n0").unwrap().program, linear);
    drop(plane);
    FRAGS_REFUSED.set(false);
    let (plane, notes) = lab.open();
    assert!(plane.was_adopted() && plane.attachments()[0].native);
    assert_eq!(notes, Vec::<String>::new());
}

#[test]
fn a_first_start_attaches_a_second_adopts_and_teardown_removes_all() {
    let lab = Lab::new(&[1, 2]);
    let (plane, notes) = lab.open();
    assert_eq!(notes, Vec::<String>::new());
    assert!(!plane.was_adopted());
    assert!(plane.attachments()[0].native);
    let writes = plane.apply(&lab.world.desired()).unwrap().writes;
    assert!(writes > 5, "{writes}");
    assert_eq!(plane.apply(&lab.world.desired()).unwrap().writes, 0);
    let before = xdp("n0").unwrap();
    drop(plane);
    assert_eq!(xdp("n0"), Some(before), "the program stays without the daemon");

    let (plane, notes) = lab.open();
    assert_eq!(notes, Vec::<String>::new());
    assert!(plane.was_adopted());
    assert_ne!(xdp("n0").unwrap().program, before.program, "the new program is in");
    assert!(plane.adopted().values().all(|flags| flags & real_flags::ACCEPT != 0));
    assert_eq!(plane.adopted().len(), 2);
    assert_eq!(plane.apply(&lab.world.desired()).unwrap().writes, 0, "nothing differs");

    drop(plane);
    let removed = teardown(&lab.pin_dir).unwrap();
    assert!(removed[0].contains("n0"), "{removed:?}");
    assert_eq!(xdp("n0"), None);
    assert_eq!(teardown(&lab.pin_dir).unwrap(), Vec::<String>::new());
}

#[test]
fn interfaces_come_and_go_with_the_file_and_generic_mode_is_heeded() {
    let mut lab = Lab::new(&[1]);
    drop(lab.open());
    lab.world.config.interfaces = vec![Interface { name: "n1".into(), xdp_mode: XdpMode::Generic }];
    let (plane, notes) = lab.open();
    assert!(notes.iter().any(|note| note.contains("detached from n0")), "{notes:?}");
    assert_eq!(plane.attachments().len(), 1);
    assert!(!plane.attachments()[0].native);
}

#[test]
fn a_failed_first_start_leaves_nothing() {
    let mut lab = Lab::new(&[1]);
    let mut other = Lab::new(&[1]); // another namespace: this thread's from here on
    lab.world.config.interfaces = vec![interface("n0"), interface("n1")];
    other.world.config.interfaces = vec![interface("n1")];
    drop(other.open());
    let error = lab.fail();
    assert!(error.contains("n1 already has an XDP program (id "), "{error}");
    assert!(error.contains("name medlb"), "{error}");
    assert!(error.contains("ip link set dev n1 xdp off"), "{error}");
    assert!(!lab.pin_dir.exists());
    assert_eq!(xdp("n0"), None);

    lab.world.config.interfaces = vec![interface("n0"), interface("nx"), interface("ny")];
    let error = lab.fail();
    assert!(error.contains("no such interface: nx, ny"), "{error}");
}

#[test]
fn another_layout_is_refused_and_another_size_is_noted() {
    let mut lab = Lab::new(&[1]);
    let (plane, _) = lab.open();
    lab.world.config.global.maximum_flows = 8192;
    let (_, notes) = lab.open();
    assert!(notes[0].contains("maximum_flows is 8192"), "{notes:?}");
    let mut meta = plane.maps().meta.get(0).unwrap();
    meta.abi_version += 1;
    plane.maps().meta.set(0, &meta).unwrap();
    let error = lab.fail();
    assert!(error.contains("medlb teardown"), "{error}");
    assert!(lab.pin_dir.exists(), "it keeps forwarding");
}

#[test]
fn the_data_paths_clock_runs() {
    let lab = Lab::new(&[1]);
    let (plane, _) = lab.open();
    let first = plane.now().unwrap();
    std::thread::sleep(Duration::from_millis(2600));
    let ticks = plane.now().unwrap().wrapping_sub(first);
    assert!((2..=4).contains(&ticks), "{ticks}");
}

fn key(client: u8, port: u16) -> FlowKey<AddrV4> {
    FlowKey {
        src: Ipv4Addr::new(10, 0, 9, client).into(),
        dst: Ipv4Addr::new(10, 0, 0, 1).into(),
        sport: Be16::new(port),
        dport: Be16::new(104),
    }
}

#[test]
fn a_sweep_removes_what_is_idle_and_mends_the_counts() {
    let mut lab = Lab::new(&[1, 1]);
    lab.world.config.services[0].idle_timeout = Duration::from_secs(100);
    let (plane, _) = lab.open();
    plane.apply(&lab.world.desired()).unwrap();
    let now = plane.now().unwrap();
    let flow = |real, idle: u32| Flow {
        real,
        last_seen: now.wrapping_sub(idle),
        created: now.wrapping_sub(idle),
        state: state::ESTABLISHED,
        flags: flow_flags::COUNTED,
        ..Flow::default()
    };
    for port in 0..3000 {
        let idle = if port < 1000 { 500 } else { 1 };
        plane.maps().tcp_v4.set(&key(1, port), &flow((port % 2) as u32, idle)).unwrap();
    }
    let report = plane.sweep().unwrap();
    assert_eq!(report.removed, 1000);
    assert_eq!(report.corrected, 2);
    let stats = plane.stats().unwrap();
    assert_eq!(stats.tables[0], ("flows_v4", 2000, 4096));
    assert_eq!(stats.services[0].active, 2000);
    assert_eq!(stats.services[0].real_servers[0].active, 1000);
    let connections = plane.connections().unwrap();
    assert_eq!(connections.len(), 2000);
    assert_eq!(connections[0].vip, "10.0.0.1:104".parse().unwrap());
    assert_eq!(connections[0].state, "established");
    assert!(plane.sweep().unwrap().corrected == 0);
}

#[test]
fn a_translated_connection_lives_as_long_as_either_direction() {
    let mut lab = Lab::new(&[1]);
    lab.world.config.services[0].forwarding_method = ForwardingMethod::Nat;
    lab.world.config.services[0].idle_timeout = Duration::from_secs(100);
    let (plane, _) = lab.open();
    plane.apply(&lab.world.desired()).unwrap();
    let now = plane.now().unwrap();
    let there = key(1, 5000);
    let mut to = there;
    to.dst = Ipv4Addr::new(10, 0, 0, 10).into();
    let flow = |idle: u32, to, flags| Flow {
        last_seen: now.wrapping_sub(idle),
        state: state::ESTABLISHED,
        flags: flow_flags::TRANSLATE | flags,
        to,
        ..Flow::default()
    };
    let table = &plane.maps().tcp_v4;
    table.set(&there, &flow(500, to, flow_flags::COUNTED)).unwrap();
    table.set(&to.reversed(), &flow(1, there.reversed(), flow_flags::REPLY)).unwrap();
    assert_eq!(plane.sweep().unwrap().removed, 0);
    table.set(&to.reversed(), &flow(500, there.reversed(), flow_flags::REPLY)).unwrap();
    assert_eq!(plane.sweep().unwrap().removed, 2);
    assert_eq!(table.count().unwrap(), 0);
}

#[test]
fn a_removed_server_is_released_after_its_last_connection() {
    let mut lab = Lab::new(&[1, 1]);
    let (plane, _) = lab.open();
    plane.apply(&lab.world.desired()).unwrap();
    let now = plane.now().unwrap();
    let flow = Flow {
        real: 1,
        last_seen: now,
        state: state::ESTABLISHED,
        flags: flow_flags::COUNTED,
        ..Flow::default()
    };
    plane.maps().tcp_v4.set(&key(1, 1), &flow).unwrap();
    let entry = Persistence { real: 1, renewed: now };
    let client = PersistKey { service: 0, client: AddrV4::default() };
    plane.maps().persist_v4.set(&client, &entry).unwrap();

    lab.world.config.services[0].real_servers.pop();
    assert_eq!(plane.apply(&lab.world.desired()).unwrap().retired, 1);
    assert_eq!(plane.sweep().unwrap().released, Vec::<String>::new());
    assert_eq!(plane.stats().unwrap().services[0].active, 1, "it is still visible");
    assert_eq!(plane.maps().persist_v4.count().unwrap(), 0);
    plane.maps().tcp_v4.remove(&key(1, 1)).unwrap();
    assert_eq!(plane.sweep().unwrap().released, ["DICOM/r1"]);
    assert_eq!(plane.maps().connections.get(1).unwrap(), Connections::default());

    lab.world.config.services.clear();
    plane.apply(&lab.world.desired()).unwrap();
    plane.sweep().unwrap();
    drop(plane);
    let (plane, _) = lab.open();
    assert!(plane.adopted().is_empty(), "nothing is left to adopt");
}

#[test]
fn persistence_of_a_failed_server_is_dropped_unless_it_is_to_be_kept() {
    for keep in [false, true] {
        let mut lab = Lab::new(&[1, 1]);
        let service = &mut lab.world.config.services[0];
        service.on_down.keep_persistence = keep;
        service.persistence = Some(crate::config::model::Persistence {
            timeout: Duration::from_secs(3600),
            prefix_length: 32,
        });
        let (plane, _) = lab.open();
        plane.apply(&lab.world.desired()).unwrap();
        let entry = Persistence { real: 1, renewed: plane.now().unwrap() };
        let client = PersistKey { service: 0, client: Ipv4Addr::new(10, 0, 9, 1).into() };
        plane.maps().persist_v4.set(&client, &entry).unwrap();
        assert_eq!(plane.persistence().unwrap().len(), 1);
        plane.sweep().unwrap();
        assert_eq!(plane.maps().persist_v4.count().unwrap(), 1);
        lab.world.set(1, crate::health::Health::Down, Duration::ZERO);
        plane.apply(&lab.world.desired()).unwrap();
        plane.sweep().unwrap();
        assert_eq!(plane.maps().persist_v4.count().unwrap(), keep as u32);
    }
}

#[test]
fn a_thousand_services_of_ten_servers_are_applied_within_a_second() {
    let mut lab = Lab::new(&[1; 10]);
    for i in 1..1000u32 {
        let mut service = lab.world.config.services[0].clone();
        service.label = format!("S{i}");
        service.address = Ipv4Addr::from(0x0a01_0000 + i).into();
        lab.world.config.services.push(service);
    }
    let (plane, _) = lab.open();
    let start = Instant::now();
    plane.apply(&lab.world.desired()).unwrap();
    let first = start.elapsed();
    for service in &mut lab.world.config.services {
        service.idle_timeout = Duration::from_secs(60);
        service.real_servers.swap(0, 9);
    }
    let start = Instant::now();
    plane.apply(&lab.world.desired()).unwrap();
    let reload = start.elapsed();
    println!("first {first:?}, reload {reload:?}");
    assert!(first < Duration::from_secs(1) && reload < Duration::from_secs(1));
    let start = Instant::now();
    let before = plane.lock().state.clone();
    let after = crate::reconcile::adopt::adopt(plane.maps()).unwrap();
    println!("read back in {:?}", start.elapsed());
    assert_eq!(before.services, after.services);
    assert_eq!(before.reals, after.reals);
    assert_eq!(before.vips, after.vips);
    assert_eq!(before.filter, after.filter);
    assert_eq!(before.interfaces, after.interfaces);
}

#[test]
fn links_are_written_where_the_data_path_looks() {
    let lab = Lab::new(&[1]);
    let (plane, _) = lab.open();
    let n0 = link::query(link::By::Name("n0")).unwrap().unwrap();
    assert_eq!(plane.links(&[n0.ifindex, 9999]).unwrap().len(), 1);
    let world = &lab.world;
    let wanted = desired(&crate::desired::Inputs {
        config: &world.config,
        health: &world.health,
        admin: &world.admin,
        paths: &world.paths,
        links: &[Link { ifindex: n0.ifindex, mac: n0.mac, mtu: n0.mtu }],
        adopted: &world.adopted,
        now: world.now,
    });
    plane.apply(&wanted).unwrap();
    assert_eq!(plane.maps().interface_slots.get(&n0.ifindex).unwrap(), Some(0));
    assert_eq!(plane.maps().tx_ports.get(0).unwrap()[0], n0.ifindex);
    let mut without = wanted.clone();
    without.links.clear();
    plane.apply(&without).unwrap();
    assert_eq!(plane.maps().interface_slots.get(&n0.ifindex).unwrap(), None);
    assert!(plane.maps().tx_ports.get(0).is_err());
    assert_eq!(plane.maps().reals.get(0).unwrap().mode, mode::DR);
}

/// A SYN from 10.0.9.1 to the VIP.
fn syn(sport: u16, dport: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 1, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 9, 1, 10, 0, 0, 1]);
    frame.extend(sport.to_be_bytes());
    frame.extend(dport.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend([0; 6]);
    frame
}

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// Which server a SYN goes to, by the last byte of its MAC address.
fn chosen(plane: &DataPlane, sport: u16) -> u8 {
    let (action, frame) = plane.loaded.run(&syn(sport, 104));
    assert_eq!(action, XDP_REDIRECT);
    assert_eq!(frame[..5], [2, 0, 0, 0, 1]);
    frame[5]
}

#[test]
fn the_data_path_follows_what_is_applied_and_a_failed_server_gets_nothing_more() {
    let mut lab = Lab::new(&[1, 1]);
    let options = Options { test_clock: true };
    let (plane, _) = DataPlane::open_with(&lab.world.config, options).unwrap();
    assert_eq!(plane.loaded.run(&syn(1, 104)).0, XDP_PASS);
    plane.apply(&lab.world.desired()).unwrap();
    let mut seen = [0; 2];
    for port in 0..20 {
        seen[chosen(&plane, 1000 + port) as usize] += 1;
    }
    assert_eq!(seen, [10, 10]);
    assert_eq!(plane.loaded.run(&syn(1, 105)).0, XDP_PASS, "a port without a service");
    lab.world.set(1, crate::health::Health::Down, Duration::ZERO);
    plane.apply(&lab.world.desired()).unwrap();
    for port in 0..20 {
        assert_eq!(chosen(&plane, 2000 + port), 0);
    }
    let stats = plane.stats().unwrap();
    let service = &stats.services[0];
    assert_eq!(service.traffic.connections, 40);
    assert_eq!(service.real_servers[0].pending, 30);
    assert_eq!(stats.verdicts[0], ("transmitted", 40));

    // A removed server's traffic stays in its service's sum, also for a new daemon.
    lab.world.config.services[0].real_servers.pop();
    plane.apply(&lab.world.desired()).unwrap();
    assert_eq!(plane.sweep().unwrap().released, Vec::<String>::new(), "half-open ones are left");
    assert_eq!(plane.connections().unwrap().len(), 40);
    let meta = Meta { test_clock_offset: 120, ..plane.maps().meta.get(0).unwrap() };
    plane.maps().meta.set(0, &meta).unwrap();
    assert_eq!(plane.connections().unwrap().len(), 0, "all are silent now");
    assert_eq!(plane.sweep().unwrap().released, ["DICOM/r1"]);
    assert_eq!(plane.stats().unwrap().services[0].real_servers[0].pending, 0);
    drop(plane);
    let (plane, _) = lab.open();
    plane.apply(&lab.world.desired()).unwrap();
    let stats = plane.stats().unwrap();
    assert_eq!(stats.services[0].traffic.connections, 40);
    assert_eq!(stats.services[0].real_servers[0].traffic.connections, 30);
    assert_eq!(stats.verdicts[0], ("transmitted", 40));
}

#[test]
fn the_data_plane_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<DataPlane>();
}

/// `cargo test --release -p lb-userspace -- --ignored --nocapture million`
#[test]
#[ignore = "a measurement, not a test"]
fn a_sweep_of_a_million_flows_is_cheap() {
    let mut lab = Lab::new(&[1]);
    lab.world.config.global.maximum_flows = 1_000_000;
    let (plane, _) = lab.open();
    plane.apply(&lab.world.desired()).unwrap();
    let now = plane.now().unwrap();
    let flow = Flow {
        last_seen: now,
        created: now,
        state: 1,
        flags: flow_flags::COUNTED,
        ..Flow::default()
    };
    for i in 0..1_000_000u32 {
        let mut key = key((i >> 16) as u8, i as u16);
        key.dport = Be16::new(1 + (i >> 24) as u16);
        plane.maps().tcp_v4.set(&key, &flow).unwrap();
    }
    let start = Instant::now();
    plane.sweep().unwrap();
    println!("{:?}", start.elapsed());
}
