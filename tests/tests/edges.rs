//! Fixtures of the edges: IPv6, extension headers, fragments, ICMP, VLAN tags, packets that do not
//! fit, datagrams that nobody can take.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::IpAddr;

use lb_common::abi::*;
use tests::plane::expect::{expect, expect_bytes};
use tests::plane::frame::{ACK, Frame, SYN};
use tests::plane::pieces::{IcmpError, extend_v6, fragment_v4, fragment_v6, tagged};
use tests::plane::{Action, CLIENT_MAC, INGRESS, LB_MAC, Plane, real_mac, rip, words};

/// The addresses of one family.
struct Names {
    client: &'static str,
    vip: &'static str,
    real: &'static str,
    router: &'static str,
    v6: bool,
}

const V4: Names = Names {
    client: "192.0.2.7:40000",
    vip: "10.0.0.100:104",
    real: "10.0.1.1:104",
    router: "198.51.100.1",
    v6: false,
};
const V6: Names = Names {
    client: "[2001:db8::7]:40000",
    vip: "[fd00::100]:104",
    real: "[fd00:1::1]:104",
    router: "2001:db8:ffff::1",
    v6: true,
};

impl Names {
    fn ip(&self, name: &str) -> IpAddr {
        name.parse::<std::net::SocketAddr>().expect("test address").ip()
    }

    fn plane(&self, mode: u8) -> Plane {
        let mut p = Plane::load(1024).unwrap();
        p.real(1, 1, mode, rip(1, self.v6)).unwrap();
        let mut service = p.service(1, mode, Select::LEAST, &[(1, 1)]).unwrap();
        service.source = words(if self.v6 { "fd00::2" } else { "10.0.0.2" }.parse().unwrap());
        p.set_service(1, service).unwrap();
        p.vip(self.ip(self.vip), &[(6, 104, 104, 1), (17, 104, 104, 1)]).unwrap();
        p
    }

    fn header(&self) -> i64 {
        if self.v6 { 40 } else { 20 }
    }

    /// What a frame looks like on its way to the server.
    fn forwarded(&self, frame: &Frame, mode: u8) -> Frame {
        let out = frame.clone().macs(real_mac(1), LB_MAC);
        if mode == mode::DR { out } else { out.translated(self.client, self.real) }
    }
}

#[test]
fn ipv6_dr_and_nat_in_both_directions() {
    for mode in [mode::DR, mode::NAT] {
        let mut p = V6.plane(mode);
        let syn = Frame::tcp(V6.client, V6.vip, SYN);
        expect(
            &mut p,
            &syn,
            Action::Tx,
            &V6.forwarded(&syn, mode),
            &[
                ("real1.packets_in", 1),
                ("real1.bytes_in", 60),
                ("real1.connections", 1),
                ("real1.pending", 1),
            ],
        );
        let ack = Frame::tcp(V6.client, V6.vip, ACK).payload(b"x");
        expect(
            &mut p,
            &ack,
            Action::Tx,
            &V6.forwarded(&ack, mode),
            &[
                ("real1.packets_in", 1),
                ("real1.bytes_in", 61),
                ("real1.pending", -1),
                ("real1.active", 1),
            ],
        );
        if mode == mode::NAT {
            let reply =
                Frame::tcp(V6.real, V6.client, ACK).macs(LB_MAC, real_mac(1)).payload(b"yz");
            let out = reply.clone().translated(V6.vip, V6.client).macs(CLIENT_MAC, LB_MAC);
            expect(
                &mut p,
                &reply,
                Action::Tx,
                &out,
                &[("real1.packets_out", 1), ("real1.bytes_out", 62)],
            );
        }
    }
}

#[test]
fn ipv6_snat_in_both_directions_for_tcp_and_udp() {
    for udp in [false, true] {
        let mut p = V6.plane(mode::SNAT);
        let make = |src: &str, dst: &str, flags| {
            if udp { Frame::udp(src, dst).payload(b"data") } else { Frame::tcp(src, dst, flags) }
        };
        let first = make(V6.client, V6.vip, SYN);
        let (action, out) = p.run(&first.bytes()).unwrap();
        assert_eq!(action, Action::Tx);
        let port = u16::from_be_bytes([out[54], out[55]]);
        assert!((61000..=65535).contains(&port));
        let source = format!("[fd00::2]:{port}");
        let expected = first.clone().translated(&source, V6.real).macs(real_mac(1), LB_MAC);
        assert_eq!(out, expected.bytes());
        let reply = make(V6.real, &source, SYN | ACK).macs(LB_MAC, real_mac(1));
        let out = reply.clone().translated(V6.vip, V6.client).macs(CLIENT_MAC, LB_MAC);
        let bytes = if udp { 52 } else { 60 };
        expect(
            &mut p,
            &reply,
            Action::Tx,
            &out,
            &[("real1.packets_out", 1), ("real1.bytes_out", bytes)],
        );
    }
}

#[test]
fn ipv6_extension_headers_are_walked_over_and_kept() {
    let chain = [(0, 8), (60, 24), (43, 8)];
    for mode in [mode::DR, mode::NAT] {
        let mut p = V6.plane(mode);
        let syn = Frame::tcp(V6.client, V6.vip, SYN);
        let out = extend_v6(&V6.forwarded(&syn, mode).bytes(), &chain);
        expect_bytes(
            &mut p,
            &extend_v6(&syn.bytes(), &chain),
            Action::Tx,
            &out,
            &[
                ("real1.packets_in", 1),
                ("real1.bytes_in", 100),
                ("real1.connections", 1),
                ("real1.pending", 1),
            ],
        );
    }
    // Longer than is walked: the kernel's.
    let mut p = V6.plane(mode::DR);
    let long = extend_v6(&Frame::tcp(V6.client, V6.vip, SYN).bytes(), &[(60, 8); 7]);
    expect_bytes(&mut p, &long.clone(), Action::Pass, &long, &[("not_ours", 1)]);
}

#[test]
fn fragments_follow_their_first_one() {
    for names in [V4, V6] {
        for mode in [mode::DR, mode::NAT] {
            let mut p = names.plane(mode);
            let payload: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
            let mut whole = Frame::udp(names.client, names.vip).payload(&payload);
            whole.id = 77;
            let cut = |frame: &Frame| {
                let bytes = frame.bytes();
                if names.v6 { fragment_v6(&bytes, 1200, 77) } else { fragment_v4(&bytes, 1200) }
            };
            let expected = cut(&names.forwarded(&whole, mode));
            for (i, (piece, out)) in cut(&whole).iter().zip(&expected).enumerate() {
                let bytes = piece.len() as i64 - 14;
                let mut moved = vec![("real1.packets_in", 1), ("real1.bytes_in", bytes)];
                if i == 0 {
                    moved.extend([("real1.connections", 1), ("real1.active", 1)]);
                }
                expect_bytes(&mut p, piece, Action::Tx, out, &moved);
            }
            // A later fragment without its first: ours, and counted; another's: the kernel's.
            whole.id = 78;
            let mut lone = cut(&whole)[1].clone();
            if names.v6 {
                lone[14 + 40 + 7] = 78;
            }
            let verdict = [("fragment_unmatched", 1)];
            expect_bytes(&mut p, &lone.clone(), Action::Drop, &lone, &verdict);
            let other = if names.v6 { "[fd00::9]:1" } else { "10.0.0.9:1" };
            let alien = cut(&Frame::udp(names.client, other).payload(&payload))[1].clone();
            expect_bytes(&mut p, &alien.clone(), Action::Pass, &alien, &[("not_ours", 1)]);
        }
    }
}

fn quote(frame: &Frame, names: &Names) -> Vec<u8> {
    frame.bytes()[14..14 + names.header() as usize + 8].to_vec()
}

/// A router tells the VIP that what the server sent does not fit: the server hears of it.
#[test]
fn icmp_errors_from_the_clients_side_reach_the_server_translated() {
    for names in [V4, V6] {
        for mode in [mode::DR, mode::NAT] {
            for udp in [false, true] {
                let mut p = names.plane(mode);
                let make = |src: &str, dst: &str, flags| {
                    if udp { Frame::udp(src, dst) } else { Frame::tcp(src, dst, flags) }
                };
                p.run(&make(names.client, names.vip, SYN).bytes()).unwrap();
                p.run(&make(names.client, names.vip, ACK).bytes()).unwrap();
                let seen = make(names.vip, names.client, ACK);
                let error = IcmpError {
                    dst_mac: LB_MAC,
                    src_mac: CLIENT_MAC,
                    src: names.router.parse().unwrap(),
                    dst: names.ip(names.vip),
                    kind: if names.v6 { (2, 0) } else { (3, 4) },
                    rest: 1400,
                    quoted: quote(&seen, &names),
                    ttl: 60,
                    df: false,
                };
                let mut out = error.clone();
                (out.dst_mac, out.src_mac) = (real_mac(1), LB_MAC);
                if mode == mode::NAT {
                    let mut sent = make(names.real, names.client, ACK);
                    sent.ttl = seen.ttl;
                    out.dst = names.ip(names.real);
                    out.quoted = quote(&sent, &names);
                    out.ttl -= 1;
                }
                let bytes = names.header() * 2 + 16;
                let moved = [("real1.packets_in", 1), ("real1.bytes_in", bytes)];
                let frame = error.bytes();
                // The quoted TCP checksum is not in the quotation; UDP's is, and is translated.
                expect_bytes(&mut p, &frame, Action::Tx, &out.bytes(), &moved);
            }
        }
    }
}

/// A router behind medlb tells the client: the error comes from the VIP and quotes what the client
/// sent.
#[test]
fn icmp_errors_from_the_servers_side_reach_the_client_translated() {
    for names in [V4, V6] {
        let mut p = names.plane(mode::NAT);
        p.run(&Frame::tcp(names.client, names.vip, SYN).bytes()).unwrap();
        p.run(&Frame::tcp(names.client, names.vip, ACK).bytes()).unwrap();
        let seen = Frame::tcp(names.client, names.real, ACK);
        let error = IcmpError {
            dst_mac: LB_MAC,
            src_mac: real_mac(1),
            src: names.router.parse().unwrap(),
            dst: names.ip(names.client),
            kind: if names.v6 { (2, 0) } else { (3, 4) },
            rest: 1300,
            quoted: quote(&seen, &names),
            ttl: 60,
            df: false,
        };
        let mut out = error.clone();
        (out.dst_mac, out.src_mac) = (CLIENT_MAC, LB_MAC);
        out.src = names.ip(names.vip);
        out.quoted = quote(&Frame::tcp(names.client, names.vip, ACK), &names);
        out.ttl -= 1;
        let bytes = names.header() * 2 + 16;
        expect_bytes(
            &mut p,
            &error.bytes(),
            Action::Tx,
            &out.bytes(),
            &[("real1.packets_out", 1), ("real1.bytes_out", bytes)],
        );
        // About a flow that nobody knows, and an echo: the kernel's.
        let mut stranger = error.clone();
        stranger.quoted = quote(&Frame::tcp("192.0.2.99:1", "10.0.1.1:104", ACK), &V4);
        if !names.v6 {
            let frame = stranger.bytes();
            expect_bytes(&mut p, &frame, Action::Pass, &frame, &[("not_ours", 1)]);
            stranger.kind = (8, 0);
            stranger.dst = names.ip(names.vip);
            let frame = stranger.bytes();
            expect_bytes(&mut p, &frame, Action::Pass, &frame, &[("not_ours", 1)]);
        }
    }
}

#[test]
fn a_packet_that_does_not_fit_is_answered_with_the_mtu() {
    for names in [V4, V6] {
        for mode in [mode::DR, mode::NAT] {
            let mut p = names.plane(mode);
            p.run(&Frame::tcp(names.client, names.vip, SYN).bytes()).unwrap();
            p.run(&Frame::tcp(names.client, names.vip, ACK).bytes()).unwrap();
            let mut real = p.real(1, 1, mode, rip(1, names.v6)).unwrap();
            real.mtu = 1280;
            p.set_real(1, real).unwrap();
            let big = Frame::tcp(names.client, names.vip, ACK).payload(&[7; 1400]);
            let out = IcmpError {
                dst_mac: CLIENT_MAC,
                src_mac: LB_MAC,
                src: names.ip(names.vip),
                dst: names.ip(names.client),
                kind: if names.v6 { (2, 0) } else { (3, 4) },
                rest: 1280,
                quoted: quote(&big, &names),
                ttl: 64,
                df: true,
            };
            expect_bytes(
                &mut p,
                &big.bytes(),
                Action::Tx,
                &out.bytes(),
                &[("too_big", 1), ("service1.too_big", 1)],
            );
        }
    }
}

#[test]
fn a_datagram_that_nobody_can_take_is_answered_with_port_unreachable() {
    for names in [V4, V6] {
        let mut p = names.plane(mode::DR);
        let mut real = p.real(1, 1, mode::DR, rip(1, names.v6)).unwrap();
        real.flags = real_flags::NEIGHBOUR;
        p.set_real(1, real).unwrap();
        let datagram = Frame::udp(names.client, names.vip).payload(b"anyone?");
        let out = IcmpError {
            dst_mac: CLIENT_MAC,
            src_mac: LB_MAC,
            src: names.ip(names.vip),
            dst: names.ip(names.client),
            kind: if names.v6 { (1, 4) } else { (3, 3) },
            rest: 0,
            quoted: quote(&datagram, &names),
            ttl: 64,
            df: true,
        };
        expect_bytes(
            &mut p,
            &datagram.bytes(),
            Action::Tx,
            &out.bytes(),
            &[
                ("no_usable_server", 1),
                ("service1.no_usable_server", 1),
                ("refused_unreachable", 1),
                ("service1.refused_unreachable", 1),
            ],
        );
    }
}

#[test]
fn a_udp_flow_leaves_a_failed_server_for_another() {
    let mut p = V4.plane(mode::DR);
    p.real(2, 1, mode::DR, rip(2, false)).unwrap();
    p.service(1, mode::DR, Select::LEAST, &[(1, 1), (2, 1)]).unwrap();
    let datagram = Frame::udp(V4.client, V4.vip).bytes();
    let first = p.run(&datagram).unwrap().1[5];
    let mut real = p.real(first.into(), 1, mode::DR, rip(first.into(), false)).unwrap();
    real.flags = real_flags::NEIGHBOUR | real_flags::RESET;
    p.set_real(first.into(), real).unwrap();
    let (action, out) = p.run(&datagram).unwrap();
    assert_eq!((action, out[5]), (Action::Tx, 3 - first));
    let c = p.counters().unwrap();
    assert_eq!(c.get(&format!("real{first}.active")), None);
    assert_eq!(c.get(&format!("real{}.active", 3 - first)), Some(&1));
}

#[test]
fn vlan_tags_are_taken_off_and_put_on_where_the_way_out_asks() {
    const Q: u16 = 0x8100;
    const AD: u16 = 0x88a8;
    // Not ours: exactly as it was, priority bits included.
    for tags in [&[(Q, 0x6064)][..], &[(AD, 0x2001), (Q, 0x0064)], &[(Q, 0x6000)]] {
        let mut p = V4.plane(mode::NAT);
        let other = tagged(&Frame::tcp(V4.client, "10.0.0.9:104", SYN).bytes(), tags);
        expect_bytes(&mut p, &other.clone(), Action::Pass, &other, &[("not_ours", 1)]);
    }
    // To a server on VLAN 200; replies go back with the client's own tags.
    for (tags, back) in [
        (vec![(Q, 100)], vec![(Q, 100)]),
        (vec![(AD, 7), (Q, 100)], vec![(AD, 7), (Q, 100)]),
        (vec![], vec![]),
    ] {
        for vlan in [0, 200] {
            let mut p = V4.plane(mode::NAT);
            let mut real = p.real(1, 1, mode::NAT, rip(1, false)).unwrap();
            real.vlan = vlan;
            p.set_real(1, real).unwrap();
            let to_real = if vlan == 0 { vec![] } else { vec![(Q, vlan)] };
            let syn = Frame::tcp(V4.client, V4.vip, SYN);
            let out = tagged(&V4.forwarded(&syn, mode::NAT).bytes(), &to_real);
            expect_bytes(
                &mut p,
                &tagged(&syn.bytes(), &tags),
                Action::Tx,
                &out,
                &[
                    ("real1.packets_in", 1),
                    ("real1.bytes_in", 40),
                    ("real1.connections", 1),
                    ("real1.pending", 1),
                ],
            );
            let reply = Frame::tcp(V4.real, V4.client, SYN | ACK).macs(LB_MAC, real_mac(1));
            let out = reply.clone().translated(V4.vip, V4.client).macs(CLIENT_MAC, LB_MAC);
            expect_bytes(
                &mut p,
                &tagged(&reply.bytes(), &to_real),
                Action::Tx,
                &tagged(&out.bytes(), &back),
                &[("real1.packets_out", 1), ("real1.bytes_out", 40)],
            );
        }
    }
}

#[test]
fn an_interface_that_is_not_the_ingress_is_reached_by_redirect_or_named() {
    let mut p = V4.plane(mode::DR);
    let mut real = p.real(1, 1, mode::DR, rip(1, false)).unwrap();
    real.ifindex = INGRESS + 1;
    real.interface = 5; // nothing in TX_PORTS there
    p.set_real(1, real).unwrap();
    let syn = Frame::tcp(V4.client, V4.vip, SYN);
    let out = syn.clone().macs(real_mac(1), LB_MAC);
    expect(
        &mut p,
        &syn,
        Action::Drop,
        &out,
        &[
            ("redirect_failed", 1),
            ("real1.packets_in", 1),
            ("real1.bytes_in", 40),
            ("real1.connections", 1),
            ("real1.pending", 1),
        ],
    );
}
