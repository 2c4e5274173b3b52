//! Five million SYNs from sources that do not exist, by each method: connections that are established
//! stay, and clients that exist get through meanwhile.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use lb_common::abi::*;
use tests::bench::{Round, Yardstick};
use tests::plane::frame::{ACK, Frame, RST, SYN};
use tests::plane::{Action, Plane, rip, words};

const VIP: &str = "10.0.0.100:104";
const FLOOD: u32 = 5_000_000;
const IDLE: u16 = 1000;
/// SYNs of the flood between an honest client's SYN and its ACK: a round trip of a millisecond, and
/// four million packets a second; SNAT has 4,536 ports towards each server.
const BETWEEN: u32 = 4000;
const HONEST: u32 = 100;

fn plane(mode: u8) -> Plane {
    // The sizes that an operator gets: 65,536 half-open connections.
    let mut p = Plane::load_with(4096, 65_536, true).unwrap();
    for i in 1..=2 {
        p.real(i, 1, mode, rip(i, false)).unwrap();
    }
    let mut service = p.service(1, mode, Select::LEAST, &[(1, 1), (2, 1)]).unwrap();
    service.source = words("10.0.0.2".parse().unwrap());
    p.set_service(1, service).unwrap();
    p.vip("10.0.0.100".parse().unwrap(), &[(6, 104, 104, 1)]).unwrap();
    p
}

/// Sends a segment that must reach a real server, and says which; a RST to the client is none.
#[track_caller]
fn server(p: &mut Plane, src: &str, flags: u8) -> u8 {
    let segment = Frame::tcp(src, VIP, flags).payload(b"six bytes or more");
    let (action, out) = p.run(&segment.bytes()).unwrap();
    assert_eq!(action, Action::Tx, "{src}");
    assert_eq!(out[47] & RST, 0, "{src} was reset");
    out[5]
}

fn withstands(mode: u8) {
    let mut p = plane(mode);
    let idle: Vec<String> = (1..=IDLE).map(|port| format!("192.0.2.7:{port}")).collect();
    let of: Vec<u8> = idle
        .iter()
        .map(|src| {
            server(&mut p, src, SYN);
            server(&mut p, src, ACK)
        })
        .collect();

    let mut yardstick = Yardstick::load().unwrap();
    let spoofed = Frame::tcp("10.128.0.0:0", VIP, SYN).bytes();
    yardstick.settings(&spoofed, Round::scattered(1 << 31)).unwrap();
    yardstick.next(&p.program().unwrap().fd().unwrap().try_clone().unwrap()).unwrap();
    for n in 0..HONEST {
        let client = format!("198.51.100.9:{}", 2000 + n);
        yardstick.run(&spoofed, FLOOD / HONEST - BETWEEN).unwrap();
        server(&mut p, &client, SYN);
        yardstick.run(&spoofed, BETWEEN).unwrap();
        server(&mut p, &client, ACK);
    }

    for (src, of) in idle.iter().zip(of) {
        assert_eq!(server(&mut p, src, ACK), of, "{src}");
    }
    let c = p.counters().unwrap();
    assert_eq!(c["real1.active"] + c["real2.active"], i64::from(IDLE) + i64::from(HONEST));
    let begun = c["real1.connections"] + c["real2.connections"];
    assert_eq!(begun, i64::from(FLOOD + HONEST) + i64::from(IDLE), "every SYN is counted");
}

#[test]
fn dr_withstands_five_million_syns() {
    withstands(mode::DR);
}

#[test]
fn nat_withstands_five_million_syns() {
    withstands(mode::NAT);
}

#[test]
fn snat_withstands_five_million_syns() {
    withstands(mode::SNAT);
}
