//! VIPs: added, announced, put back, taken away; never somebody else's.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::harness::{PATIENCE, Peer, StateDir, event, in_namespace, ip, ip_output, sysctl, until};
use crate::net::{Net, NetEvent, NetHandle, Vip, VipProblem, release_vips};

const MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

/// Two cables: 10.9.1.1/24 on eth0, 10.9.2.1/24 and 2001:db8:2::1/64 on eth1.
fn two_interfaces() -> Peer {
    let peer = Peer::new();
    peer.connect("eth0", "lan0", 1);
    peer.connect("eth1", "lan1", 2);
    ip("addr add 10.9.1.1/24 dev eth0");
    ip("addr add 10.9.2.1/24 dev eth1");
    ip("addr add 2001:db8:2::1/64 dev eth1 nodad");
    peer
}

fn attached() -> Vec<String> {
    vec!["eth0".into(), "eth1".into()]
}

fn vips(list: &[&str]) -> Vec<Vip> {
    list.iter()
        .map(|text| Vip { address: text.parse().unwrap(), preferred_interface: None })
        .collect()
}

async fn set(net: &NetHandle, list: Vec<Vip>) -> Vec<VipProblem> {
    timeout(PATIENCE, net.set_vips(list)).await.unwrap().unwrap()
}

fn has(interface: &str, address: &str) -> bool {
    ip_output(&format!("-o addr show dev {interface}")).contains(&format!(" {address} "))
}

#[test]
fn a_vip_goes_to_the_interface_of_its_subnet_or_to_the_first() {
    in_namespace(async || {
        let (_peer, state) = (two_interfaces(), StateDir::new());
        let (net, _news) = Net::start(attached(), state.0.clone()).await.unwrap();
        let mut list = vips(&["10.9.2.100", "10.9.1.100", "192.0.2.1", "2001:db8:2::100"]);
        list.push(Vip {
            address: "10.9.1.101".parse().unwrap(),
            preferred_interface: Some("eth1".into()),
        });
        assert_eq!(set(&net, list.clone()).await, []);
        for (interface, address) in [
            ("eth1", "10.9.2.100/32"),
            ("eth0", "10.9.1.100/32"),
            ("eth0", "192.0.2.1/32"),
            ("eth1", "2001:db8:2::100/128"),
            ("eth1", "10.9.1.101/32"),
        ] {
            assert!(has(interface, address), "{address} is not on {interface}");
        }
        let routes = ip_output("-6 route show dev eth1");
        assert!(!routes.contains("2001:db8:2::100"), "no prefix route: {routes}");
        let route = ip_output("-6 route get 2001:db8:2::101");
        assert!(route.contains("src 2001:db8:2::1 "), "a VIP is no source address: {route}");
        assert!(net.addresses().iter().any(|a| a.address.to_string() == "10.9.2.100"));
        list.last_mut().unwrap().preferred_interface = Some("eth0".into());
        assert_eq!(set(&net, list).await, []);
        assert!(has("eth0", "10.9.1.101/32") && !has("eth1", "10.9.1.101/32"), "it moves");
        assert_eq!(set(&net, Vec::new()).await, []);
        let left = ip_output("-o addr show");
        assert!(!left.contains("/32 ") && !left.contains("2001:db8:2::100"), "{left}");
        assert!(left.contains("10.9.1.1/24") && left.contains("10.9.2.1/24"));
    });
}

#[test]
fn an_address_that_was_there_before_stays() {
    in_namespace(async || {
        let (_peer, state) = (two_interfaces(), StateDir::new());
        ip("addr add 10.9.1.50/32 dev eth0");
        let (net, _news) = Net::start(attached(), state.0.clone()).await.unwrap();
        set(&net, vips(&["10.9.1.50", "10.9.1.1", "10.9.1.51"])).await;
        assert!(has("eth0", "10.9.1.51/32") && !has("eth0", "10.9.1.1/32"));
        set(&net, Vec::new()).await;
        assert!(has("eth0", "10.9.1.50/32") && has("eth0", "10.9.1.1/24"));
        assert!(!has("eth0", "10.9.1.51/32"));
    });
}

#[test]
fn a_restart_after_a_kill_knows_which_addresses_are_ours() {
    in_namespace(async || {
        let (peer, state) = (two_interfaces(), StateDir::new());
        ip("addr add 10.9.1.50/32 dev eth0");
        let list = || vips(&["10.9.1.50", "10.9.1.60", "10.9.1.61"]);
        let (net, news) = Net::start(attached(), state.0.clone()).await.unwrap();
        set(&net, list()).await;
        drop((net, news));
        sleep(Duration::from_millis(50)).await;
        assert!(has("eth0", "10.9.1.60/32"), "VIPs outlive the task");
        let sniffer = peer.sniff("lan0");
        let (net, news) = Net::start(attached(), state.0.clone()).await.unwrap();
        assert!(has("eth0", "10.9.1.60/32"), "nothing is removed before the VIPs are known");
        assert_eq!(set(&net, list()[..2].to_vec()).await, []);
        assert!(has("eth0", "10.9.1.60/32") && !has("eth0", "10.9.1.61/32"));
        let announced = sniffer.collect(1, |frame| is_garp(frame, [10, 9, 1, 60], 1)).await;
        assert_eq!(announced.len(), 1, "an address that stays is announced again");
        drop((net, news));
        let released = release_vips(&state.0).await.unwrap();
        assert_eq!(released, [IpAddr::from([10, 9, 1, 60])]);
        assert!(!has("eth0", "10.9.1.60/32") && has("eth0", "10.9.1.50/32"));
        assert_eq!(release_vips(&state.0).await.unwrap(), [] as [IpAddr; 0], "twice is fine");
    });
}

#[test]
fn a_vip_that_somebody_removes_is_put_back() {
    in_namespace(async || {
        let (_peer, state) = (two_interfaces(), StateDir::new());
        let (net, _news) = Net::start(attached(), state.0.clone()).await.unwrap();
        set(&net, vips(&["10.9.1.100", "2001:db8:2::100"])).await;
        ip("addr del 10.9.1.100/32 dev eth0");
        until("the VIP is back", || has("eth0", "10.9.1.100/32")).await;
        // Going down takes IPv6 addresses away.
        ip("link set eth1 down");
        ip("link set eth1 up");
        until("the IPv6 VIP is back", || has("eth1", "2001:db8:2::100/128")).await;
    });
}

#[test]
fn a_vip_that_cannot_be_placed_is_a_problem_until_it_can() {
    in_namespace(async || {
        let (_peer, state) = (two_interfaces(), StateDir::new());
        sysctl("net/ipv6/conf/eth0/disable_ipv6", "1");
        let (net, mut news) = Net::start(attached(), state.0.clone()).await.unwrap();
        let mut list = vips(&["2001:db8:1::100"]);
        list.push(Vip {
            address: "10.9.3.1".parse().unwrap(),
            preferred_interface: Some("later0".into()),
        });
        let problems = set(&net, list).await;
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(problems[0].problem, "there is no interface later0");
        assert!(problems[1].problem.contains("disable_ipv6"), "{}", problems[1].problem);
        ip("link add later0 type veth peer name later1");
        sysctl("net/ipv6/conf/eth0/disable_ipv6", "0");
        event(&mut news, |e| matches!(e, NetEvent::VipProblems(p) if p.is_empty())).await;
        assert!(has("later0", "10.9.3.1/32") && has("eth0", "2001:db8:1::100/128"));
    });
}

/// Whether a frame is an ARP announcement of `vip` with that operation.
fn is_garp(frame: &[u8], vip: [u8; 4], operation: u8) -> bool {
    frame.len() >= 42
        && frame[..6] == [0xff; 6]
        && frame[6..12] == MAC
        && frame[12..22] == [8, 6, 0, 1, 8, 0, 6, 4, 0, operation]
        && frame[22..28] == MAC
        && frame[28..32] == vip
        && frame[38..42] == vip
}

#[test]
fn neighbours_hear_of_an_ipv4_vip_at_once_again_later_and_after_the_link_was_down() {
    in_namespace(async || {
        let (peer, state) = (two_interfaces(), StateDir::new());
        let (net, _news) = Net::start(attached(), state.0.clone()).await.unwrap();
        let sniffer = peer.sniff("lan0");
        set(&net, vips(&["10.9.1.100"])).await;
        let vip = [10, 9, 1, 100];
        let requests = sniffer.collect(9, |frame| is_garp(frame, vip, 1)).await;
        assert_eq!(requests.len(), 9, "three bursts of three");
        ip("link set eth0 down");
        ip("link set eth0 up");
        let replies = sniffer.collect(3, |frame| is_garp(frame, vip, 2)).await;
        assert_eq!(replies.len(), 3);
    });
}

#[test]
fn a_router_nearby_learns_the_new_place_of_a_vip() {
    in_namespace(async || {
        let (peer, state) = (two_interfaces(), StateDir::new());
        peer.ip("addr add 10.9.1.2/24 dev lan0");
        peer.ip("addr add 2001:db8:2::2/64 dev lan1 nodad");
        // What the router knows from the machine that had the VIPs before.
        peer.ip("neigh add 10.9.1.100 lladdr 02:aa:00:00:00:01 dev lan0 nud reachable");
        peer.ip("neigh add 2001:db8:2::100 lladdr 02:aa:00:00:00:02 dev lan1 nud reachable");
        let (net, _news) = Net::start(attached(), state.0.clone()).await.unwrap();
        set(&net, vips(&["10.9.1.100", "2001:db8:2::100"])).await;
        let knows = |mac: &'static str, query: &'static str| {
            peer.run(move || ip_output(query)).contains(mac)
        };
        until("ARP", || knows("02:00:00:00:01:01", "neigh show 10.9.1.100")).await;
        until("ND", || knows("02:00:00:00:01:02", "-6 neigh show 2001:db8:2::100")).await;
    });
}
