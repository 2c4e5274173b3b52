//! Fixtures of SNAT's ports: how many connections there can be, and that none is mistaken for
//! another.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;

use lb_common::abi::*;
use tests::plane::frame::{ACK, Frame, SYN};
use tests::plane::{Action, LB_MAC, Plane, real_mac, rip, words};

/// 61000–65535, the default of `snat_ports`.
const PORTS: u32 = 4536;

/// A plane with `services` services on 10.0.0.100, .101 and so on, all of them towards the same
/// `reals` servers, from the addresses 10.0.0.2, .3 and so on if `apart`, else from one.
fn plane(services: u32, reals: u32, apart: bool) -> Plane {
    let mut p = Plane::load_with(32_768, 65_536, true).unwrap();
    for s in 0..services {
        let mut slots = Vec::new();
        for r in 1..=reals {
            let index = s * reals + r;
            p.real(index, s + 1, mode::SNAT, rip(r, false)).unwrap();
            slots.push((index, 1));
        }
        let mut service = p.service(s + 1, mode::SNAT, Select::LEAST, &slots).unwrap();
        let source = if apart { 2 + s } else { 2 };
        service.source = words(format!("10.0.0.{source}").parse().unwrap());
        p.set_service(s + 1, service).unwrap();
        let vip = format!("10.0.0.{}", 100 + s).parse().unwrap();
        p.vip(vip, &[(6, 104, 104, s + 1)]).unwrap();
    }
    p
}

/// The connection's two ends as the real server sees them: from its address and port to its own
/// address. `None`: it was refused.
fn establish(p: &mut Plane, src: &str, vip: &str) -> Option<([u8; 4], u16, [u8; 4])> {
    let (action, out) = p.run(&Frame::tcp(src, vip, SYN).bytes()).unwrap();
    assert_eq!(action, Action::Tx);
    if out[47] & SYN == 0 {
        return None;
    }
    p.run(&Frame::tcp(src, vip, ACK).bytes()).unwrap();
    let octets = |at: usize| <[u8; 4]>::try_from(&out[at..at + 4]).unwrap();
    Some((octets(26), u16::from_be_bytes([out[34], out[35]]), octets(30)))
}

#[test]
fn at_least_95_percent_of_the_range_towards_each_server_is_used_before_it_is_exhausted() {
    let mut p = plane(1, 2, false);
    let mut seen = BTreeSet::new();
    for n in 0u32.. {
        let src = format!("192.0.2.{}:{}", 1 + n / 60_000, 1024 + n % 60_000);
        match establish(&mut p, &src, "10.0.0.100:104") {
            Some(ends) => assert!(seen.insert(ends), "{ends:?} twice"),
            None => break,
        }
    }
    assert!(p.counters().unwrap().contains_key("service1.snat_ports_exhausted"));
    let share = seen.len() as f64 / f64::from(PORTS * 2);
    assert!(share >= 0.95, "{} of {} used", seen.len(), PORTS * 2);
}

#[test]
fn connections_that_lie_together_refuse_nobody_while_there_are_ports() {
    // Half of the range in one piece, and the search begins at its start.
    let mut p = plane(2, 1, false);
    for n in 0..PORTS / 2 {
        establish(&mut p, &format!("192.0.2.1:{}", 1024 + n), "10.0.0.100:104").unwrap();
    }
    for n in 0..PORTS / 4 {
        establish(&mut p, &format!("192.0.2.1:{}", 1024 + n), "10.0.0.101:104").unwrap();
    }
}

#[test]
fn services_that_share_a_server_are_never_mistaken_for_one_another() {
    for apart in [false, true] {
        let mut p = plane(3, 1, apart);
        let mut seen = BTreeSet::new();
        let mut flows = Vec::new();
        for n in 0..600u32 {
            let vip = format!("10.0.0.{}:104", 100 + n % 3);
            let src = format!("192.0.2.1:{}", 1024 + n / 3);
            let ends = establish(&mut p, &src, &vip).unwrap();
            assert!(seen.insert(ends), "{ends:?} twice");
            flows.push((src, vip, ends));
        }
        for (src, vip, ([a, b, c, d], port, _)) in flows {
            let to = format!("{a}.{b}.{c}.{d}:{port}");
            let reply =
                Frame::tcp("10.0.1.1:104", &to, ACK).macs(LB_MAC, real_mac(1)).payload(b"x");
            let (action, out) = p.run(&reply.bytes()).unwrap();
            let due = reply.translated(&vip, &src).bytes();
            assert_eq!((action, &out[26..38]), (Action::Tx, &due[26..38]), "{src} {vip}");
        }
    }
}
