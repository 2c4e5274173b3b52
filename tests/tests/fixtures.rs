//! The fixture table: each case states the packets, the verdict, the bytes that come out and every
//! counter that moved. It runs through PROG_TEST_RUN on the loaded object, and its translations
//! through lb-common's pure rewrites on the host.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use tests::plane::expect::{expect, expect_bytes, hex, rst_for};
use tests::plane::frame::{ACK, FIN, Frame, RST, SYN};
use tests::plane::{Action, CLIENT_MAC, LB_MAC, Plane, real_mac, rip};

use lb_common::abi::*;

const C: &str = "192.0.2.7:40000";
const VIP: &str = "10.0.0.100:104";
const R1: &str = "10.0.1.1:104";

/// A plane with one TCP+UDP service on port 104 of 10.0.0.100, in `mode`, with `reals` servers.
fn plane(mode: u8, reals: u32) -> Plane {
    let mut plane = Plane::load(1024).expect("the object loads");
    let mut slots = Vec::new();
    for i in 1..=reals {
        plane.real(i, 1, mode, rip(i, false)).unwrap();
        slots.push((i, 1));
    }
    let mut service = plane.service(1, mode, Select::LEAST, &slots).unwrap();
    service.source = tests::plane::words("10.0.0.2".parse().unwrap());
    plane.set_service(1, service).unwrap();
    plane.vip("10.0.0.100".parse().unwrap(), &[(6, 104, 104, 1), (17, 104, 104, 1)]).unwrap();
    plane
}

/// A SYN and the ACK that establishes, for tests of what comes after; gives the SNAT port.
fn establish(plane: &mut Plane, src: &str) {
    plane.run(&Frame::tcp(src, VIP, SYN).bytes()).unwrap();
    let (action, _) = plane.run(&Frame::tcp(src, VIP, ACK).bytes()).unwrap();
    assert_eq!(action, Action::Tx);
}

#[test]
fn dr_syn_ack_data_reach_the_server_with_only_macs_changed() {
    let mut p = plane(mode::DR, 1);
    let syn = Frame::tcp(C, VIP, SYN);
    let out = syn.clone().macs(real_mac(1), LB_MAC);
    expect(
        &mut p,
        &syn,
        Action::Tx,
        &out,
        &[
            ("real1.packets_in", 1),
            ("real1.bytes_in", 40),
            ("real1.connections", 1),
            ("real1.pending", 1),
        ],
    );
    let ack = Frame::tcp(C, VIP, ACK);
    let out = ack.clone().macs(real_mac(1), LB_MAC);
    expect(
        &mut p,
        &ack,
        Action::Tx,
        &out,
        &[
            ("real1.packets_in", 1),
            ("real1.bytes_in", 40),
            ("real1.pending", -1),
            ("real1.active", 1),
        ],
    );
    let data = Frame::tcp(C, VIP, ACK).payload(b"A-ASSOCIATE-RQ");
    let out = data.clone().macs(real_mac(1), LB_MAC);
    expect(&mut p, &data, Action::Tx, &out, &[("real1.packets_in", 1), ("real1.bytes_in", 54)]);
    let fin = Frame::tcp(C, VIP, FIN | ACK);
    let out = fin.clone().macs(real_mac(1), LB_MAC);
    expect(
        &mut p,
        &fin,
        Action::Tx,
        &out,
        &[("real1.packets_in", 1), ("real1.bytes_in", 40), ("real1.active", -1)],
    );
}

#[test]
fn nat_translates_both_directions() {
    let mut p = plane(mode::NAT, 1);
    let syn = Frame::tcp(C, VIP, SYN);
    let out = syn.clone().translated(C, R1).macs(real_mac(1), LB_MAC);
    expect(
        &mut p,
        &syn,
        Action::Tx,
        &out,
        &[
            ("real1.packets_in", 1),
            ("real1.bytes_in", 40),
            ("real1.connections", 1),
            ("real1.pending", 1),
        ],
    );
    let reply = Frame::tcp(R1, C, SYN | ACK).macs(LB_MAC, real_mac(1));
    let out = reply.clone().translated(VIP, C).macs(CLIENT_MAC, LB_MAC);
    expect(&mut p, &reply, Action::Tx, &out, &[("real1.packets_out", 1), ("real1.bytes_out", 40)]);
    let ack = Frame::tcp(C, VIP, ACK).payload(b"x");
    let out = ack.clone().translated(C, R1).macs(real_mac(1), LB_MAC);
    expect(
        &mut p,
        &ack,
        Action::Tx,
        &out,
        &[
            ("real1.packets_in", 1),
            ("real1.bytes_in", 41),
            ("real1.pending", -1),
            ("real1.active", 1),
        ],
    );
    let data = Frame::tcp(R1, C, ACK).macs(LB_MAC, real_mac(1)).payload(b"odd");
    let out = data.clone().translated(VIP, C).macs(CLIENT_MAC, LB_MAC);
    expect(&mut p, &data, Action::Tx, &out, &[("real1.packets_out", 1), ("real1.bytes_out", 43)]);
    let fin = Frame::tcp(R1, C, FIN | ACK).macs(LB_MAC, real_mac(1));
    let out = fin.clone().translated(VIP, C).macs(CLIENT_MAC, LB_MAC);
    expect(
        &mut p,
        &fin,
        Action::Tx,
        &out,
        &[("real1.packets_out", 1), ("real1.bytes_out", 40), ("real1.active", -1)],
    );
}

#[test]
fn nat_translates_the_port_too() {
    let mut p = plane(mode::NAT, 0);
    let mut real = p.real(1, 1, mode::NAT, rip(1, false)).unwrap();
    real.port = Be16::new(11112);
    p.set_real(1, real).unwrap();
    let mut service = p.service(1, mode::NAT, Select::LEAST, &[(1, 1)]).unwrap();
    service.idle = 10;
    p.set_service(1, service).unwrap();
    let syn = Frame::tcp(C, VIP, SYN);
    let out = syn.clone().translated(C, "10.0.1.1:11112").macs(real_mac(1), LB_MAC);
    let (action, bytes) = p.run(&syn.bytes()).unwrap();
    assert_eq!((action, hex(&bytes)), (Action::Tx, hex(&out.bytes())));
    let reply = Frame::tcp("10.0.1.1:11112", C, SYN | ACK).macs(LB_MAC, real_mac(1));
    let out = reply.clone().translated(VIP, C).macs(CLIENT_MAC, LB_MAC);
    let (action, bytes) = p.run(&reply.bytes()).unwrap();
    assert_eq!((action, hex(&bytes)), (Action::Tx, hex(&out.bytes())));
}

/// Sends a SYN and gives the source that the server sees.
fn snat_source(p: &mut Plane, src: &str) -> String {
    let (action, out) = p.run(&Frame::tcp(src, VIP, SYN).bytes()).unwrap();
    assert_eq!(action, Action::Tx);
    assert_eq!(&out[26..30], &[10, 0, 0, 2]);
    format!("10.0.0.2:{}", u16::from_be_bytes([out[34], out[35]]))
}

#[test]
fn snat_translates_both_directions_with_a_port_of_the_range() {
    let mut p = plane(mode::SNAT, 1);
    let source = snat_source(&mut p, C);
    let port: u16 = source.rsplit(':').next().unwrap().parse().unwrap();
    assert!((61000..=65535).contains(&port), "{port}");
    let syn = Frame::tcp(C, VIP, SYN); // retransmitted: the same translation
    let out = syn.clone().translated(&source, R1).macs(real_mac(1), LB_MAC);
    expect(&mut p, &syn, Action::Tx, &out, &[("real1.packets_in", 1), ("real1.bytes_in", 40)]);
    let reply = Frame::tcp(R1, &source, SYN | ACK).macs(LB_MAC, real_mac(1));
    let out = reply.clone().translated(VIP, C).macs(CLIENT_MAC, LB_MAC);
    expect(&mut p, &reply, Action::Tx, &out, &[("real1.packets_out", 1), ("real1.bytes_out", 40)]);
    let ack = Frame::tcp(C, VIP, ACK).payload(&[0xff; 33]);
    let out = ack.clone().translated(&source, R1).macs(real_mac(1), LB_MAC);
    expect(
        &mut p,
        &ack,
        Action::Tx,
        &out,
        &[
            ("real1.packets_in", 1),
            ("real1.bytes_in", 73),
            ("real1.pending", -1),
            ("real1.active", 1),
        ],
    );
    let data = Frame::tcp(R1, &source, ACK).macs(LB_MAC, real_mac(1)).payload(b"A-ASSOCIATE-AC");
    let out = data.clone().translated(VIP, C).macs(CLIENT_MAC, LB_MAC);
    expect(&mut p, &data, Action::Tx, &out, &[("real1.packets_out", 1), ("real1.bytes_out", 54)]);
}

#[test]
fn udp_is_forwarded_both_ways_and_no_checksum_stays_none() {
    for mode in [mode::DR, mode::NAT] {
        let mut p = plane(mode, 1);
        let mut request = Frame::udp(C, VIP).payload(b"syslog");
        request.no_checksum = true;
        let out =
            if mode == mode::DR { request.clone() } else { request.clone().translated(C, R1) };
        let out = out.macs(real_mac(1), LB_MAC);
        expect(
            &mut p,
            &request,
            Action::Tx,
            &out,
            &[
                ("real1.packets_in", 1),
                ("real1.bytes_in", 34),
                ("real1.connections", 1),
                ("real1.active", 1),
            ],
        );
        let request = Frame::udp(C, VIP).payload(b"again");
        let out =
            if mode == mode::DR { request.clone() } else { request.clone().translated(C, R1) };
        let out = out.macs(real_mac(1), LB_MAC);
        expect(
            &mut p,
            &request,
            Action::Tx,
            &out,
            &[("real1.packets_in", 1), ("real1.bytes_in", 33)],
        );
        if mode == mode::NAT {
            let reply = Frame::udp(R1, C).payload(b"ok").macs(LB_MAC, real_mac(1));
            let out = reply.clone().translated(VIP, C).macs(CLIENT_MAC, LB_MAC);
            expect(
                &mut p,
                &reply,
                Action::Tx,
                &out,
                &[("real1.packets_out", 1), ("real1.bytes_out", 30)],
            );
        }
    }
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let mut p = plane(mode::NAT, 1);
    let other = Frame::tcp(C, "10.0.0.9:104", SYN);
    expect(&mut p, &other, Action::Pass, &other, &[("not_ours", 1)]);
    let from_real = Frame::tcp("10.0.1.1:22", "192.0.2.9:5000", ACK);
    expect(&mut p, &from_real, Action::Pass, &from_real, &[("not_ours", 1)]);
    let other_port = Frame::tcp(C, "10.0.0.100:22", SYN);
    expect(&mut p, &other_port, Action::Pass, &other_port, &[("to_kernel", 1)]);
    let mut arp = vec![0xff; 6];
    arp.extend(CLIENT_MAC);
    arp.extend([0x08, 0x06]);
    arp.extend([0; 46]);
    expect_bytes(&mut p, &arp.clone(), Action::Pass, &arp, &[("not_ours", 1)]);
}

#[test]
fn ipv4_options_are_kept() {
    let mut p = plane(mode::NAT, 1);
    let mut syn = Frame::tcp(C, VIP, SYN);
    syn.options = vec![1, 1, 1, 1, 0x94, 4, 0, 0];
    let out = syn.clone().translated(C, R1).macs(real_mac(1), LB_MAC);
    let (action, bytes) = p.run(&syn.bytes()).unwrap();
    assert_eq!((action, hex(&bytes)), (Action::Tx, hex(&out.bytes())));
}

#[test]
fn padding_is_no_payload_and_a_length_beyond_the_frame_is_refused() {
    let mut p = plane(mode::DR, 1);
    let mut syn = Frame::tcp(C, VIP, SYN);
    syn.padding = 6;
    let out = syn.clone().macs(real_mac(1), LB_MAC);
    expect(
        &mut p,
        &syn,
        Action::Tx,
        &out,
        &[
            ("real1.packets_in", 1),
            ("real1.bytes_in", 40),
            ("real1.connections", 1),
            ("real1.pending", 1),
        ],
    );
    let mut long = Frame::tcp(C, VIP, SYN).bytes();
    long[17] += 1;
    expect_bytes(&mut p, &long.clone(), Action::Drop, &long, &[("malformed", 1)]);
    let mut short = Frame::tcp(C, VIP, SYN).bytes();
    short[17] = 39;
    expect_bytes(&mut p, &short.clone(), Action::Drop, &short, &[("malformed", 1)]);
}

#[test]
fn a_failed_server_is_reset_at_once_to_whoever_speaks() {
    for mode in [mode::DR, mode::NAT] {
        let mut p = plane(mode, 1);
        establish(&mut p, C);
        let mut real = p.real(1, 1, mode, rip(1, false)).unwrap();
        real.flags = real_flags::NEIGHBOUR | real_flags::RESET;
        p.set_real(1, real).unwrap();
        let data = Frame::tcp(C, VIP, ACK).payload(b"P-DATA-TF");
        let out = rst_for(&data, data.ack, 0, RST);
        expect(
            &mut p,
            &data,
            Action::Tx,
            &out,
            &[("server_down_reset", 1), ("service1.server_down_reset", 1), ("real1.active", -1)],
        );
        if mode == mode::NAT {
            let data = Frame::tcp(R1, C, ACK).macs(LB_MAC, real_mac(1)).payload(b"C-STORE-RSP");
            let out = rst_for(&data, data.ack, 0, RST);
            expect(
                &mut p,
                &data,
                Action::Tx,
                &out,
                &[("server_down_reset", 1), ("service1.server_down_reset", 1)],
            );
        }
        // A new connection finds nobody: refused at once.
        let mut syn = Frame::tcp("192.0.2.8:40000", VIP, SYN);
        syn.padding = 6;
        let out = rst_for(&syn, 0, syn.seq + 1, RST | ACK);
        expect(
            &mut p,
            &syn,
            Action::Tx,
            &out,
            &[
                ("no_usable_server", 1),
                ("service1.no_usable_server", 1),
                ("refused_reset", 1),
                ("service1.refused_reset", 1),
            ],
        );
    }
}

#[test]
fn a_segment_without_a_connection_is_reset_and_a_rst_never_answered() {
    let mut p = plane(mode::DR, 1);
    let stray = Frame::tcp(C, VIP, ACK).payload(b"nobody knows");
    let out = rst_for(&stray, stray.ack, 0, RST);
    expect(
        &mut p,
        &stray,
        Action::Tx,
        &out,
        &[("no_flow_reset", 1), ("service1.no_flow_reset", 1)],
    );
    let rst = Frame::tcp(C, VIP, RST);
    expect(&mut p, &rst, Action::Drop, &rst, &[("no_flow", 1), ("service1.no_flow", 1)]);
}

#[test]
fn the_fallback_server_takes_what_nobody_else_can() {
    let mut p = plane(mode::NAT, 1);
    let mut real = p.real(1, 1, mode::NAT, rip(1, false)).unwrap();
    real.flags = real_flags::NEIGHBOUR;
    p.set_real(1, real).unwrap();
    p.real(2, 1, mode::NAT, rip(2, false)).unwrap();
    let mut service = p.service(1, mode::NAT, Select::LEAST, &[(1, 1)]).unwrap();
    service.fallback = 2;
    p.set_service(1, service).unwrap();
    let syn = Frame::tcp(C, VIP, SYN);
    let out = syn.clone().translated(C, "10.0.1.2:104").macs(real_mac(2), LB_MAC);
    expect(
        &mut p,
        &syn,
        Action::Tx,
        &out,
        &[
            ("real2.packets_in", 1),
            ("real2.bytes_in", 40),
            ("real2.connections", 1),
            ("real2.pending", 1),
        ],
    );
}

#[test]
fn persistence_pins_a_client_until_it_expires_and_is_renewed() {
    let mut p = plane(mode::DR, 2);
    let mut service = p.service(1, mode::DR, Select::LEAST, &[(1, 1), (2, 1)]).unwrap();
    service.flags |= service_flags::PERSISTENT;
    service.persist = 60;
    service.persist_mask = tests::plane::words("255.255.255.255".parse().unwrap());
    p.set_service(1, service).unwrap();
    let to = |p: &mut Plane, src: &str| p.run(&Frame::tcp(src, VIP, SYN).bytes()).unwrap().1[5];
    let first = to(&mut p, "192.0.2.7:1");
    for port in 2..20 {
        p.advance(10).unwrap(); // far beyond 60 in all, but renewed each time
        assert_eq!(to(&mut p, &format!("192.0.2.7:{port}")), first);
    }
    p.advance(61).unwrap();
    // Expired: the least loaded one now, which is the other.
    assert_ne!(to(&mut p, "192.0.2.7:99"), first);
}

#[test]
fn wlc_spreads_connections_by_weight() {
    let mut p = plane(mode::DR, 3);
    p.service(1, mode::DR, Select::LEAST, &[(1, 1), (2, 2), (3, 1)]).unwrap();
    for port in 1..=400 {
        establish(&mut p, &format!("192.0.2.7:{port}"));
    }
    let c = p.counters().unwrap();
    assert_eq!([c["real1.active"], c["real2.active"], c["real3.active"]], [100, 200, 100]);
}

#[test]
fn a_limit_takes_a_server_out_until_it_has_fallen() {
    let mut p = plane(mode::DR, 1);
    let mut real = p.real(1, 1, mode::DR, rip(1, false)).unwrap();
    real.maximum_connections = 3;
    real.minimum_connections = 1;
    p.set_real(1, real).unwrap();
    for port in 1..=3 {
        establish(&mut p, &format!("192.0.2.7:{port}"));
    }
    let taken = |p: &mut Plane, port: u16| {
        let (_, out) = p.run(&Frame::tcp(&format!("192.0.2.7:{port}"), VIP, SYN).bytes()).unwrap();
        out[5] == 1
    };
    assert!(!taken(&mut p, 10));
    p.run(&Frame::tcp("192.0.2.7:1", VIP, FIN | ACK).bytes()).unwrap();
    assert!(!taken(&mut p, 11)); // 2 left: not down to the minimum
    p.run(&Frame::tcp("192.0.2.7:2", VIP, FIN | ACK).bytes()).unwrap();
    assert!(taken(&mut p, 12));
}

#[test]
fn a_syn_on_a_closed_expired_or_draining_tuple_selects_again() {
    let mut p = plane(mode::DR, 2);
    establish(&mut p, C);
    let first = p.counters().unwrap().contains_key("real1.active");
    let (old, new) = if first { (1u8, 2u8) } else { (2, 1) };
    let syn = Frame::tcp(C, VIP, SYN).bytes();
    // Established and fresh: the same server, whatever the SYN means.
    assert_eq!(p.run(&syn).unwrap().1[5], old);
    // Draining: another one.
    let mut real = p.real(old as u32, 1, mode::DR, rip(old as u32, false)).unwrap();
    real.flags = real_flags::NEIGHBOUR;
    p.set_real(old as u32, real).unwrap();
    assert_eq!(p.run(&syn).unwrap().1[5], new);
    let c = p.counters().unwrap();
    assert_eq!(c.get(&format!("real{old}.active")), None);
    // After FIN: a fresh flow, counted as a connection.
    p.run(&Frame::tcp(C, VIP, ACK).bytes()).unwrap();
    p.run(&Frame::tcp(C, VIP, FIN | ACK).bytes()).unwrap();
    let before = p.counters().unwrap();
    p.run(&syn).unwrap();
    let moved = Plane::moved(&before, &p.counters().unwrap());
    assert_eq!(moved.get(&format!("real{new}.connections")), Some(&1));
}

#[test]
fn an_idle_connection_lives_to_the_last_second_and_a_syn_after_it_starts_anew() {
    let mut p = plane(mode::DR, 1);
    establish(&mut p, C);
    p.advance(3600).unwrap();
    let ack = Frame::tcp(C, VIP, ACK).payload(b"still here");
    let out = ack.clone().macs(real_mac(1), LB_MAC);
    expect(&mut p, &ack, Action::Tx, &out, &[("real1.packets_in", 1), ("real1.bytes_in", 50)]);
    p.advance(3601).unwrap();
    let syn = Frame::tcp(C, VIP, SYN);
    let out = syn.clone().macs(real_mac(1), LB_MAC);
    expect(
        &mut p,
        &syn,
        Action::Tx,
        &out,
        &[
            ("real1.packets_in", 1),
            ("real1.bytes_in", 40),
            ("real1.connections", 1),
            ("real1.active", -1),
            ("real1.pending", 1),
        ],
    );
}

#[test]
fn replies_follow_the_client_to_its_new_last_hop() {
    let mut p = plane(mode::NAT, 1);
    establish(&mut p, C);
    let router = [2, 0, 0, 0, 0, 0xdd];
    p.run(&Frame::tcp(C, VIP, ACK).macs(LB_MAC, router).bytes()).unwrap();
    let reply = Frame::tcp(R1, C, ACK).macs(LB_MAC, real_mac(1));
    let out = reply.clone().translated(VIP, C).macs(router, LB_MAC);
    expect(&mut p, &reply, Action::Tx, &out, &[("real1.packets_out", 1), ("real1.bytes_out", 40)]);
}

#[test]
fn an_unknown_neighbour_and_a_spent_ttl_are_dropped_by_name() {
    let mut p = plane(mode::NAT, 1);
    establish(&mut p, C);
    let mut spent = Frame::tcp(C, VIP, ACK);
    spent.ttl = 1;
    expect(
        &mut p,
        &spent,
        Action::Drop,
        &spent,
        &[("ttl_expired", 1), ("service1.ttl_expired", 1)],
    );
    let mut p = plane(mode::DR, 1);
    establish(&mut p, C);
    let mut real = p.real(1, 1, mode::DR, rip(1, false)).unwrap();
    real.flags = real_flags::ACCEPT;
    p.set_real(1, real).unwrap();
    let data = Frame::tcp(C, VIP, ACK);
    let moved = [("neighbour_unknown", 1), ("service1.neighbour_unknown", 1)];
    expect(&mut p, &data, Action::Drop, &data, &moved);
}

#[test]
fn snat_uses_the_whole_range_before_it_is_exhausted() {
    let mut p = plane(mode::SNAT, 1);
    let mut service = p.service(1, mode::SNAT, Select::LEAST, &[(1, 1)]).unwrap();
    service.source = tests::plane::words("10.0.0.2".parse().unwrap());
    service.snat_count = 200;
    p.set_service(1, service).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for port in 1..=200 {
        let src = format!("192.0.2.7:{port}");
        assert!(seen.insert(snat_source(&mut p, &src)));
        p.run(&Frame::tcp(&src, VIP, ACK).bytes()).unwrap();
    }
    let mut one_more = Frame::tcp("192.0.2.7:999", VIP, SYN);
    one_more.padding = 6;
    let out = rst_for(&one_more, 0, one_more.seq + 1, RST | ACK);
    expect(
        &mut p,
        &one_more,
        Action::Tx,
        &out,
        &[
            ("snat_ports_exhausted", 1),
            ("service1.snat_ports_exhausted", 1),
            ("refused_reset", 1),
            ("service1.refused_reset", 1),
        ],
    );
}
