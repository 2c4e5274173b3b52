//! Fixtures of full tables: DR goes on without state, NAT and SNAT refuse, idle connections stay.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use lb_common::abi::*;
use tests::plane::expect::{expect, rst_for};
use tests::plane::frame::{ACK, Frame, RST, SYN};
use tests::plane::{Action, LB_MAC, Plane, real_mac, rip, words};

const VIP: &str = "10.0.0.100:104";

fn plane(mode: u8, flows: u32) -> Plane {
    let mut p = Plane::load(flows).expect("the object loads");
    for i in 1..=2 {
        p.real(i, 1, mode, rip(i, false)).unwrap();
    }
    let mut service = p.service(1, mode, Select::LEAST, &[(1, 1), (2, 1)]).unwrap();
    service.source = words("10.0.0.2".parse().unwrap());
    p.set_service(1, service).unwrap();
    p.vip("10.0.0.100".parse().unwrap(), &[(6, 104, 104, 1)]).unwrap();
    p
}

/// Opens connections until the table is full; gives how many fitted.
fn fill(p: &mut Plane) -> u16 {
    for port in 1..1000 {
        let src = format!("192.0.2.7:{port}");
        p.run(&Frame::tcp(&src, VIP, SYN).bytes()).unwrap();
        p.run(&Frame::tcp(&src, VIP, ACK).bytes()).unwrap();
        if p.counters().unwrap().contains_key("flow_table_full") {
            return port - 1;
        }
    }
    panic!("the table never filled");
}

#[test]
fn dr_goes_on_by_source_hash_and_established_connections_stay() {
    let mut p = plane(mode::DR, 8);
    let fitted = fill(&mut p);
    assert!((7..=12).contains(&fitted), "{fitted}");
    // A new connection and a segment whose flow is unknown go to the same server, by source hash.
    let syn = Frame::tcp("192.0.2.9:5", VIP, SYN);
    let (action, out) = p.run(&syn.bytes()).unwrap();
    assert_eq!(action, Action::Tx);
    let real = out[5];
    let data = Frame::tcp("192.0.2.9:6", VIP, ACK).payload(b"x");
    let out = data.clone().macs(real_mac(real.into()), LB_MAC);
    expect(
        &mut p,
        &data,
        Action::Tx,
        &out,
        &[
            ("stateless", 1),
            ("service1.stateless", 1),
            (&format!("real{real}.packets_in"), 1),
            (&format!("real{real}.bytes_in"), 41),
        ],
    );
    let old = Frame::tcp("192.0.2.7:1", VIP, ACK).payload(b"idle until now");
    assert_eq!(p.run(&old.bytes()).unwrap().0, Action::Tx);
    // The pressure passes: unknown segments are reset again.
    p.advance(3).unwrap();
    let mut data = data;
    data.padding = 6;
    let (action, out) = p.run(&data.bytes()).unwrap();
    assert_eq!(action, Action::Tx);
    assert_eq!(out[47] & RST, RST);
}

#[test]
fn nat_refuses_with_a_reset_and_counts_why() {
    for mode in [mode::NAT, mode::SNAT] {
        let mut p = plane(mode, 8);
        let fitted = fill(&mut p);
        assert!((3..=6).contains(&fitted), "{fitted}");
        let mut syn = Frame::tcp("192.0.2.9:5", VIP, SYN);
        syn.padding = 6;
        let out = rst_for(&syn, 0, syn.seq + 1, RST | ACK);
        expect(
            &mut p,
            &syn,
            Action::Tx,
            &out,
            &[
                ("flow_table_full", 1),
                ("service1.flow_table_full", 1),
                ("refused_reset", 1),
                ("service1.refused_reset", 1),
            ],
        );
        let old = Frame::tcp("192.0.2.7:1", VIP, ACK).payload(b"idle until now");
        assert_eq!(p.run(&old.bytes()).unwrap().0, Action::Tx);
    }
}
