//! Half-open DR connections: what is in the buckets is counted, expires, makes way, and never leads a
//! packet to another connection's server, whatever other CPUs do meanwhile.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_common::abi::*;
use lb_common::policy::tcp::state;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tests::plane::expect::{expect, rst_for};
use tests::plane::frame::{ACK, Frame, RST, SYN};
use tests::plane::{Action, CLIENT_MAC, Plane, real_mac, rip};

const REALS: u32 = 4;

/// A DR service that takes its servers in turn.
fn plane(flows: u32, half_open: u32) -> Plane {
    let mut plane = Plane::load_with(flows, half_open, true).unwrap();
    let mut slots = Vec::new();
    for real in 1..=REALS {
        plane.real(real, 1, mode::DR, rip(real, false)).unwrap();
        slots.push((real, 1));
    }
    let service = plane.service(1, mode::DR, Select::CURSOR, &slots).unwrap();
    plane.set_service(1, service).unwrap();
    plane.vip("10.0.0.100".parse().unwrap(), &[(6, 104, 104, 1)]).unwrap();
    plane
}

fn segment(port: u16, flags: u8) -> Frame {
    Frame::tcp(&format!("192.0.2.7:{port}"), "10.0.0.100:104", flags)
}

/// The real server that a frame is for; none: it is a RST for the client.
fn server(out: &[u8]) -> Option<u32> {
    (out[..6] != CLIENT_MAC).then(|| (1..=REALS).find(|&real| out[..6] == real_mac(real)).unwrap())
}

fn send(plane: &mut Plane, port: u16, flags: u8) -> Option<u32> {
    let (action, out) = plane.run(&segment(port, flags).bytes()).unwrap();
    assert_eq!(action, Action::Tx);
    server(&out)
}

/// Half-open connections by real server: as counted, and as found in the buckets.
fn pending(plane: &mut Plane) -> (BTreeMap<u32, i64>, BTreeMap<u32, i64>) {
    let mut counted = BTreeMap::new();
    let counters = plane.counters().unwrap();
    for real in 1..=REALS {
        if let Some(&n) = counters.get(&format!("real{real}.pending")) {
            counted.insert(real, n);
        }
    }
    let mut found = BTreeMap::new();
    for bucket in plane.openings().unwrap() {
        assert_eq!(bucket.lock & 1, 0, "no bucket stays locked");
        for place in bucket.places {
            if let Some((real, state::OPENING)) = Opening::<AddrV4>::real_and_state(place.server) {
                *found.entry(real).or_default() += 1;
            }
        }
    }
    (counted, found)
}

#[test]
fn a_flood_pushes_out_the_oldest_and_whoever_is_left_keeps_its_server() {
    let mut p = plane(4096, 64);
    let room = p.openings().unwrap().len() * PLACES;
    let chosen: Vec<_> = (0..1000).map(|port| send(&mut p, 1000 + port, SYN).unwrap()).collect();
    let (counted, found) = pending(&mut p);
    assert_eq!(counted, found);
    assert_eq!(found.values().sum::<i64>(), room as i64, "every place is taken");
    let mut opened = Vec::new();
    for (port, real) in (1000..).zip(chosen) {
        if let Some(server) = send(&mut p, port, ACK) {
            assert_eq!(server, real, "port {port}");
            opened.push(port);
        }
    }
    assert_eq!(opened.len(), room);
    // Buckets do not turn over at the same pace, but the latest connections are all there.
    assert!((1980..2000).all(|port| opened.contains(&port)), "{opened:?}");
    assert_eq!(pending(&mut p), Default::default());
}

#[test]
fn a_half_open_connection_ends_after_its_time_and_not_before() {
    let mut p = plane(1024, 1024);
    let first = send(&mut p, 1, SYN).unwrap();
    send(&mut p, 2, SYN).unwrap();
    p.advance(60).unwrap();
    assert_eq!(send(&mut p, 1, SYN), Some(first), "the same server, and its time begins anew");
    p.advance(60).unwrap();
    assert_eq!(send(&mut p, 1, ACK), Some(first));
    let late = segment(2, ACK).payload(b"too late, alas");
    let out = rst_for(&late, late.ack, 0, RST);
    let counts = [("no_flow_reset", 1), ("service1.no_flow_reset", 1)];
    expect(&mut p, &late, Action::Tx, &out, &counts);
    // What is silent still lies there, and is replaced without being counted twice: the sweeper has
    // taken it off the count.
    let mut connections = p.array::<Connections>("CONNECTIONS").unwrap();
    for real in 1..=REALS {
        connections.set(real, Connections::default(), 0).unwrap();
    }
    let again = send(&mut p, 2, SYN).unwrap();
    let (counted, found) = pending(&mut p);
    assert_eq!(counted, BTreeMap::from([(again, 1)]));
    assert_eq!(counted, found);
}

/// Runs a frame as [`Plane::run`] does, but from any thread.
fn run(program: &Xdp, frame: &[u8]) -> Option<u32> {
    let mut out = vec![0; 256];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = program.test_run(options).unwrap();
    // A RST of a connection that has made way is dropped.
    (result.return_value == 3).then(|| server(&out)).flatten()
}

#[test]
fn cpus_that_fight_for_one_bucket_lose_no_count_and_mix_no_connections() {
    const EACH: u16 = 20_000;
    let mut p = plane(65_536, PER_BUCKET);
    assert_eq!(p.openings().unwrap().len(), 1);
    let program = p.program().unwrap();
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpus: Vec<_> =
        (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap()).take(2).collect();
    let workers = |thread: u16| {
        let mut cpu = CpuSet::new();
        cpu.set(cpus[usize::from(thread) % cpus.len()]).unwrap();
        sched_setaffinity(Pid::from_raw(0), &cpu).unwrap();
        let mut lost = 0;
        for n in 0..EACH {
            let port = 1000 + thread * EACH + n;
            // Dropped where the other held the bucket for too long: its virtual CPU was taken away.
            let Some(chosen) = run(program, &segment(port, SYN).bytes()) else {
                lost += 1;
                continue;
            };
            let last = if n % 3 == 0 { RST } else { ACK };
            match run(program, &segment(port, last).bytes()) {
                Some(real) => assert_eq!(real, chosen, "port {port}"),
                None => lost += 1,
            }
        }
        lost
    };
    let lost: Vec<u16> = std::thread::scope(|scope| {
        let threads = [0, 1].map(|thread| scope.spawn(move || workers(thread)));
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert!(lost.iter().all(|&lost| lost < EACH / 2), "{lost:?} of {EACH} made way");
    let (counted, found) = pending(&mut p);
    assert_eq!(counted, found);
}
