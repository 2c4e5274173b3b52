//! Frames that do not lie in one piece: forwarded whole, and answered as short ones are.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use lb_common::abi::*;
use tests::plane::expect::{expect, rst_for};
use tests::plane::frame::{ACK, Frame, RST, SYN};
use tests::plane::{Action, LB_MAC, Plane, real_mac, rip};

const CLIENT: &str = "192.0.2.7:40000";
const VIP: &str = "10.0.0.100:104";

fn plane(mode: u8) -> Plane {
    let mut p = Plane::load(64).expect("the object loads");
    p.real(1, 1, mode, rip(1, false)).unwrap();
    p.service(1, mode, Select::LEAST, &[(1, 1)]).unwrap();
    p.service(2, mode, Select::LEAST, &[]).unwrap();
    let ports = [(6, 104, 104, 1), (17, 9, 9, 2)];
    p.vip("10.0.0.100".parse().unwrap(), &ports).unwrap();
    p
}

/// As much as a frame of 9000 bytes holds, no two words alike.
fn payload() -> Vec<u8> {
    (0..4470u16).flat_map(u16::to_be_bytes).collect()
}

#[test]
fn a_jumbo_segment_is_forwarded_whole() {
    for mode in [mode::DR, mode::NAT] {
        let mut p = plane(mode);
        p.run(&Frame::tcp(CLIENT, VIP, SYN).bytes()).unwrap();
        p.run(&Frame::tcp(CLIENT, VIP, ACK).bytes()).unwrap();
        let data = Frame::tcp(CLIENT, VIP, ACK).payload(&payload());
        let mut out = data.clone().macs(real_mac(1), LB_MAC);
        if mode == mode::NAT {
            out = out.translated(CLIENT, "10.0.1.1:104");
        }
        let bytes = 40 + payload().len() as i64;
        let moved = [("real1.packets_in", 1), ("real1.bytes_in", bytes)];
        expect(&mut p, &data, Action::Tx, &out, &moved);
    }
}

#[test]
fn a_jumbo_segment_of_no_connection_is_answered_with_a_short_rst() {
    let mut p = plane(mode::DR);
    let data = Frame::tcp(CLIENT, VIP, ACK).payload(&payload());
    let out = rst_for(&data, data.ack, 0, RST);
    let moved = [("no_flow_reset", 1), ("service1.no_flow_reset", 1)];
    expect(&mut p, &data, Action::Tx, &out, &moved);
}

#[test]
fn a_jumbo_datagram_that_nobody_can_take_is_answered_with_a_short_error() {
    let mut p = plane(mode::DR);
    let data = Frame::udp(CLIENT, "10.0.0.100:9").payload(&payload()).bytes();
    let (action, out) = p.run(&data).unwrap();
    assert_eq!(action, Action::Tx);
    assert_eq!(out.len(), 14 + 20 + 8 + 20 + 8);
    assert_eq!((out[34], out[35]), (3, 3)); // port unreachable
    assert_eq!(out[42..70], data[14..42]);
    assert_eq!(p.counters().unwrap()["refused_unreachable"], 1);
}

#[test]
fn where_a_driver_refuses_jumbo_frames_the_program_without_them_does_the_same() {
    for mode in [mode::DR, mode::NAT] {
        let mut p = plane(mode);
        p.linear().unwrap();
        p.run(&Frame::tcp(CLIENT, VIP, SYN).bytes()).unwrap();
        p.run(&Frame::tcp(CLIENT, VIP, ACK).bytes()).unwrap();
        let data = Frame::tcp(CLIENT, VIP, ACK).payload(b"one page is enough");
        let mut out = data.clone().macs(real_mac(1), LB_MAC);
        if mode == mode::NAT {
            out = out.translated(CLIENT, "10.0.1.1:104");
        }
        let moved = [("real1.packets_in", 1), ("real1.bytes_in", 58)];
        expect(&mut p, &data, Action::Tx, &out, &moved);
    }
}
