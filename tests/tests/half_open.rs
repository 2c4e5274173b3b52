//! Fixtures of connections whose handshake does not go as usual.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use lb_common::abi::*;
use tests::plane::expect::{expect, rst_for};
use tests::plane::frame::{ACK, FIN, Frame, RST, SYN};
use tests::plane::{Action, Plane, real_mac, rip, words};

const C: &str = "192.0.2.7:40000";
const VIP: &str = "10.0.0.100:104";
const MODES: [u8; 3] = [mode::DR, mode::NAT, mode::SNAT];

fn plane(mode: u8) -> Plane {
    let mut plane = Plane::load(1024).unwrap();
    plane.real(1, 1, mode, rip(1, false)).unwrap();
    let mut service = plane.service(1, mode, Select::LEAST, &[(1, 1)]).unwrap();
    service.source = words("10.0.0.2".parse().unwrap());
    plane.set_service(1, service).unwrap();
    plane.vip("10.0.0.100".parse().unwrap(), &[(6, 104, 104, 1)]).unwrap();
    plane
}

/// The keys of half-open connections.
fn half_open(plane: &mut Plane) -> Vec<FlowKey<AddrV4>> {
    plane.half_open().unwrap()
}

/// Sends a frame that must come out towards the real server, and says what moved.
fn sent(plane: &mut Plane, flags: u8) -> Vec<(String, i64)> {
    let before = plane.counters().unwrap();
    let (action, out) = plane.run(&Frame::tcp(C, VIP, flags).bytes()).unwrap();
    assert_eq!((action, &out[..6]), (Action::Tx, &real_mac(1)[..]));
    Plane::moved(&before, &plane.counters().unwrap()).into_iter().collect()
}

fn moved(names: &[(&str, i64)]) -> Vec<(String, i64)> {
    names.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

#[test]
fn a_fin_in_the_segment_that_establishes_leaves_nothing_counted_as_active() {
    for mode in MODES {
        let mut p = plane(mode);
        sent(&mut p, SYN);
        let expected =
            moved(&[("real1.bytes_in", 40), ("real1.packets_in", 1), ("real1.pending", -1)]);
        assert_eq!(sent(&mut p, FIN | ACK), expected, "mode {mode}");
        assert_eq!(half_open(&mut p), [], "mode {mode}");
        // It is closing: a SYN on its addresses and ports is a new connection.
        let expected = moved(&[
            ("real1.bytes_in", 40),
            ("real1.connections", 1),
            ("real1.packets_in", 1),
            ("real1.pending", 1),
        ]);
        assert_eq!(sent(&mut p, SYN), expected, "mode {mode}");
    }
}

#[test]
fn a_client_that_resets_its_own_syn_is_pending_no_longer_and_may_begin_again() {
    for mode in MODES {
        let mut p = plane(mode);
        sent(&mut p, SYN);
        let entries = half_open(&mut p).len();
        let expected =
            moved(&[("real1.bytes_in", 40), ("real1.packets_in", 1), ("real1.pending", -1)]);
        assert_eq!(sent(&mut p, RST), expected, "mode {mode}");
        // A second RST changes no count.
        let expected = moved(&[("real1.bytes_in", 40), ("real1.packets_in", 1)]);
        assert_eq!(sent(&mut p, RST), expected, "mode {mode}");
        let expected = moved(&[
            ("real1.bytes_in", 40),
            ("real1.connections", 1),
            ("real1.packets_in", 1),
            ("real1.pending", 1),
        ]);
        assert_eq!(sent(&mut p, SYN), expected, "mode {mode}");
        assert_eq!(half_open(&mut p).len(), entries, "mode {mode}: nothing of the old one is left");
    }
}

#[test]
fn a_syn_that_a_draining_server_has_not_answered_gives_back_its_snat_port() {
    let mut p = plane(mode::SNAT);
    p.real(2, 1, mode::SNAT, rip(2, false)).unwrap();
    let mut service = p.service(1, mode::SNAT, Select::LEAST, &[(1, 1), (2, 1)]).unwrap();
    service.source = words("10.0.0.2".parse().unwrap());
    p.set_service(1, service).unwrap();
    let syn = Frame::tcp(C, VIP, SYN).bytes();
    let old = p.run(&syn).unwrap().1[5] as u32;
    let mut real = p.real_record(old).unwrap();
    real.flags &= !real_flags::ACCEPT;
    p.set_real(old, real).unwrap();
    let (action, out) = p.run(&syn).unwrap();
    assert_eq!((action, out[5] as u32), (Action::Tx, 3 - old));
    assert_eq!(half_open(&mut p).len(), 2, "both directions of the new one only");
    assert!(!p.counters().unwrap().contains_key(&format!("real{old}.pending")));
}

#[test]
fn a_connection_whose_reply_direction_is_lost_is_refused_by_name() {
    for mode in [mode::NAT, mode::SNAT] {
        let mut p = plane(mode);
        sent(&mut p, SYN);
        let key = Frame::tcp(C, VIP, SYN);
        let reply = half_open(&mut p).into_iter().find(|key| key.dport.get() != 104).unwrap();
        let mut table = p.hash::<FlowKey<AddrV4>, Flow<AddrV4>>("HALF_V4").unwrap();
        table.remove(&reply).unwrap();
        let ack = Frame { flags: ACK, ..key }.payload(b"too late, alas");
        let out = rst_for(&ack, ack.ack, 0, RST);
        let names = [
            ("refused_reset", 1),
            ("service1.refused_reset", 1),
            ("service1.no_flow_reset", 1),
            ("real1.pending", -1),
        ];
        expect(&mut p, &ack, Action::Tx, &out, &names);
        assert_eq!(half_open(&mut p), [], "mode {mode}");
    }
}
