//! Fixtures of outbound SNAT: connections that real servers open themselves. The way out is the
//! kernel's routing table's, so each test has a network namespace of its own for its thread.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

use aya::maps::HashMap;
use lb_common::abi::*;
use nix::sched::{CloneFlags, unshare};
use tests::plane::expect::expect;
use tests::plane::frame::{ACK, FIN, Frame, RST, SYN};
use tests::plane::{Action, LB_MAC, Plane, real_mac, words};

/// The real server, the peer that it opens connections to, and what these leave with.
const SERVER: &str = "10.0.1.1:40000";
const PEER: &str = "198.51.100.9:104";
const SOURCE: &str = "10.0.0.100";
/// The peer's router, on `out0`.
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xee];
/// The MAC address of `out0`, as the data plane is told it.
const OUT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// A namespace that forwards: 203.0.113.0/24 and fd00:9::/64 on `out0`, the peers behind routers
/// there.
fn namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("root");
    for words in [
        "link set lo up",
        "link add out0 type veth peer name out1",
        "link set out0 up",
        "link set out1 up",
        "addr add 203.0.113.1/24 dev out0",
        "addr add fd00:9::1/64 dev out0 nodad",
        "neigh add 203.0.113.254 lladdr 02:00:00:00:00:ee dev out0",
        "neigh add fd00:9::fe lladdr 02:00:00:00:00:ee dev out0",
        "route add 198.51.100.0/24 via 203.0.113.254",
        "route add 198.18.0.0/24 via 203.0.113.77",
        "route add 2001:db8:9::/64 via fd00:9::fe",
    ] {
        ip(words);
    }
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{key}"), "1").unwrap();
    }
}

/// A plane with one rule: TCP 104 and 11112 and UDP 514 of 10.0.1.1 leave as 10.0.0.100; the same
/// over IPv6.
fn plane() -> Plane {
    namespace();
    let out: u32 = nix::net::if_::if_nametoindex("out0").unwrap();
    let mut p = Plane::load(1024).expect("the object loads");
    let me = Interface { ifindex: out, mac: OUT_MAC.into(), mtu: 1500, ..Default::default() };
    p.array("INTERFACES").unwrap().set(2, me, 0).unwrap();
    p.hash::<u32, u32>("INTERFACE_SLOTS").unwrap().insert(out, 2, 0).unwrap();
    p.egress(2, out).unwrap();
    for (service, real, server, source) in
        [(1, 1, "10.0.1.1", SOURCE), (2, 2, "fd00:1::1", "fd00::100")]
    {
        let (server, source) = (server.parse().unwrap(), source.parse().unwrap());
        let mut record = p.real(real, service, mode::OUTBOUND, server).unwrap();
        record.flags = real_flags::ACCEPT;
        p.set_real(real, record).unwrap();
        let mut service_record = p.service(service, mode::OUTBOUND, Select::LEAST, &[]).unwrap();
        service_record.source = words(source);
        p.set_service(service, service_record).unwrap();
        p.mark(source, FilterBit::VIP).unwrap();
        p.outbound(server, &[(6, 104, 104, real), (6, 11112, 11112, real), (17, 514, 514, real)])
            .unwrap();
    }
    p
}

/// From the real server, which is on the ingress interface.
fn from_server(frame: Frame) -> Frame {
    frame.macs(LB_MAC, real_mac(1))
}

/// Opens a connection, and gives the address and port that the peer sees.
fn open(p: &mut Plane, server: &str, peer: &str) -> String {
    let (action, out) = p.run(&from_server(Frame::tcp(server, peer, SYN)).bytes()).unwrap();
    assert_eq!(action, Action::Redirect);
    assert_eq!((&out[0..6], &out[6..12]), (&ROUTER_MAC[..], &OUT_MAC[..]));
    if peer.starts_with('[') {
        format!("[fd00::100]:{}", u16::from_be_bytes([out[54], out[55]]))
    } else {
        format!("{SOURCE}:{}", u16::from_be_bytes([out[34], out[35]]))
    }
}

#[test]
fn a_connection_leaves_with_the_other_source_and_its_replies_come_back() {
    let mut p = plane();
    let source = open(&mut p, SERVER, PEER);
    let port: u16 = source.rsplit(':').next().unwrap().parse().unwrap();
    assert!((61000..=65535).contains(&port), "{port}");
    let out = |frame: &Frame| frame.clone().translated(&source, PEER).macs(ROUTER_MAC, OUT_MAC);
    // Sent again: the same translation.
    let syn = from_server(Frame::tcp(SERVER, PEER, SYN));
    let counted = [("real1.packets_out", 1), ("real1.bytes_out", 40)];
    expect(&mut p, &syn, Action::Redirect, &out(&syn), &counted);
    let reply = Frame::tcp(PEER, &source, SYN | ACK).macs(OUT_MAC, ROUTER_MAC);
    let back = |frame: &Frame| frame.clone().translated(PEER, SERVER).macs(real_mac(1), LB_MAC);
    let counted = [("real1.packets_in", 1), ("real1.bytes_in", 40)];
    expect(&mut p, &reply, Action::Tx, &back(&reply), &counted);
    let ack = from_server(Frame::tcp(SERVER, PEER, ACK)).payload(b"A-ASSOCIATE-RQ");
    let counted = [
        ("real1.packets_out", 1),
        ("real1.bytes_out", 54),
        ("real1.pending", -1),
        ("real1.active", 1),
    ];
    expect(&mut p, &ack, Action::Redirect, &out(&ack), &counted);
    let data = Frame::tcp(PEER, &source, ACK).payload(b"A-ASSOCIATE-AC").macs(OUT_MAC, ROUTER_MAC);
    let counted = [("real1.packets_in", 1), ("real1.bytes_in", 54)];
    expect(&mut p, &data, Action::Tx, &back(&data), &counted);
    assert_eq!(p.counters().unwrap()["real1.connections"], 1);
}

#[test]
fn the_end_of_a_connection_is_noticed_and_its_ports_begin_anew() {
    let mut p = plane();
    for (who, flags) in [("server", FIN | ACK), ("peer", FIN | ACK), ("server", RST), ("peer", RST)]
    {
        let source = open(&mut p, SERVER, PEER);
        let data = from_server(Frame::tcp(SERVER, PEER, ACK)).payload(b"x");
        assert_eq!(p.run(&data.bytes()).unwrap().0, Action::Redirect);
        assert_eq!(p.counters().unwrap()["real1.active"], 1);
        let end = match who {
            "server" => from_server(Frame::tcp(SERVER, PEER, flags)),
            _ => Frame::tcp(PEER, &source, flags).macs(OUT_MAC, ROUTER_MAC),
        };
        assert!(matches!(p.run(&end.bytes()).unwrap().0, Action::Tx | Action::Redirect));
        assert_eq!(p.counters().unwrap().get("real1.active"), None, "{who} {flags}");
    }
    assert_eq!(p.counters().unwrap()["real1.connections"], 4);
}

#[test]
fn ipv6_connections_leave_with_the_other_source_too() {
    let (server, peer) = ("[fd00:1::1]:40000", "[2001:db8:9::9]:11112");
    let mut p = plane();
    let source = open(&mut p, server, peer);
    let reply = Frame::tcp(peer, &source, SYN | ACK).macs(OUT_MAC, ROUTER_MAC);
    let back = reply.clone().translated(peer, server).macs(real_mac(1), LB_MAC);
    let counted = [("real2.packets_in", 1), ("real2.bytes_in", 60)];
    expect(&mut p, &reply, Action::Tx, &back, &counted);
    let ack = from_server(Frame::tcp(server, peer, ACK)).payload(&[0xff; 33]);
    let out = ack.clone().translated(&source, peer).macs(ROUTER_MAC, OUT_MAC);
    let counted = [
        ("real2.packets_out", 1),
        ("real2.bytes_out", 93),
        ("real2.pending", -1),
        ("real2.active", 1),
    ];
    expect(&mut p, &ack, Action::Redirect, &out, &counted);
}

#[test]
fn datagrams_of_a_named_port_are_translated_both_ways() {
    let mut p = plane();
    let (server, peer) = ("10.0.1.1:5000", "198.51.100.9:514");
    let request = from_server(Frame::udp(server, peer)).payload(b"syslog");
    let (action, bytes) = p.run(&request.bytes()).unwrap();
    assert_eq!(action, Action::Redirect);
    let source = format!("{SOURCE}:{}", u16::from_be_bytes([bytes[34], bytes[35]]));
    let out = request.clone().translated(&source, peer).macs(ROUTER_MAC, OUT_MAC);
    let counted = [("real1.packets_out", 1), ("real1.bytes_out", 34)];
    expect(&mut p, &request, Action::Redirect, &out, &counted);
    let reply = Frame::udp(peer, &source).payload(b"ok").macs(OUT_MAC, ROUTER_MAC);
    let back = reply.clone().translated(peer, server).macs(real_mac(1), LB_MAC);
    let counted = [("real1.packets_in", 1), ("real1.bytes_in", 30)];
    expect(&mut p, &reply, Action::Tx, &back, &counted);
}

#[test]
fn everything_else_of_a_source_is_left_to_the_kernel_untouched() {
    let mut p = plane();
    for frame in [
        Frame::tcp(SERVER, "198.51.100.9:105", SYN), // no rule for the port
        Frame::udp(SERVER, "198.51.100.9:104"),      // nor for UDP to it
        Frame::tcp("10.0.1.2:40000", PEER, SYN),     // nor for the address
        Frame::tcp(SERVER, PEER, ACK),               // opens nothing: another's connection
        Frame::tcp(SERVER, PEER, SYN | ACK),
        Frame::tcp(SERVER, PEER, RST),
        Frame::tcp(SERVER, "203.0.113.1:104", SYN), // the host's own address
        Frame::tcp(SERVER, "192.0.2.1:104", SYN),   // no route: the kernel says so
    ] {
        let frame = from_server(frame);
        expect(&mut p, &frame, Action::Pass, &frame, &[("not_ours", 1)]);
    }
    // The rule is gone.
    p.set_real(1, Real { mode: mode::OUTBOUND, service: 1, ..Default::default() }).unwrap();
    let syn = from_server(Frame::tcp(SERVER, PEER, SYN));
    expect(&mut p, &syn, Action::Pass, &syn, &[("not_ours", 1)]);
}

#[test]
fn an_unknown_neighbour_is_noted_and_nothing_leaves_until_it_is_known() {
    let mut p = plane();
    let syn = from_server(Frame::tcp(SERVER, "198.18.0.9:104", SYN));
    let counted = [("neighbour_unknown", 1), ("service1.neighbour_unknown", 1)];
    expect(&mut p, &syn, Action::Drop, &syn, &counted);
    let noted: Vec<AddrV4> = {
        let map: HashMap<_, AddrV4, u32> = p.hash("UNRESOLVED_V4").unwrap();
        map.keys().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(noted, [AddrV4::from(std::net::Ipv4Addr::new(203, 0, 113, 77))]);
    ip("neigh add 203.0.113.77 lladdr 02:00:00:00:00:ee dev out0");
    open(&mut p, SERVER, "198.18.0.9:104");
}

#[test]
fn an_egress_interface_without_medlb_refuses_the_connection() {
    let mut p = plane();
    let out: u32 = nix::net::if_::if_nametoindex("out0").unwrap();
    p.hash::<u32, u32>("INTERFACE_SLOTS").unwrap().remove(&out).unwrap();
    let mut syn = from_server(Frame::tcp(SERVER, PEER, SYN));
    syn.padding = 6;
    let rst = tests::plane::expect::rst_for(&syn, 0, syn.seq + 1, RST | ACK);
    let counted = [
        ("redirect_failed", 1),
        ("service1.redirect_failed", 1),
        ("refused_reset", 1),
        ("service1.refused_reset", 1),
    ];
    expect(&mut p, &syn, Action::Tx, &rst, &counted);
}

#[test]
fn connections_to_one_peer_have_different_ports_until_the_range_is_used_up() {
    let mut p = plane();
    let mut service = p.service(1, mode::OUTBOUND, Select::LEAST, &[]).unwrap();
    service.source = words(SOURCE.parse().unwrap());
    service.snat_count = 100;
    p.set_service(1, service).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for port in 1..=100 {
        let src = format!("10.0.1.1:{port}");
        assert!(seen.insert(open(&mut p, &src, PEER)));
        p.run(&from_server(Frame::tcp(&src, PEER, ACK)).bytes()).unwrap();
    }
    let mut syn = from_server(Frame::tcp("10.0.1.1:999", PEER, SYN));
    syn.padding = 6;
    let rst = tests::plane::expect::rst_for(&syn, 0, syn.seq + 1, RST | ACK);
    let counted = [
        ("snat_ports_exhausted", 1),
        ("service1.snat_ports_exhausted", 1),
        ("refused_reset", 1),
        ("service1.refused_reset", 1),
    ];
    expect(&mut p, &syn, Action::Tx, &rst, &counted);
    // Another peer has the whole range to itself.
    open(&mut p, "10.0.1.1:999", "198.51.100.10:104");
}
