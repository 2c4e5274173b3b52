//! Next hops: found, kept, changed, lost.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::harness::{
    Peer, StateDir, event, in_namespace, ip, ip_output, path_event, sysctl, until,
};
use crate::net::{Net, NetEvent, NetHandle, Path, Resolution, Vip, announce};

const SERVER: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// A cable to one server: 10.9.1.1 and 2001:db8:1::1 here, .2 and ::2 there.
fn one_server() -> Peer {
    let peer = Peer::new();
    peer.connect("eth0", "srv0", 1);
    ip("addr add 10.9.1.1/24 dev eth0");
    ip("addr add 2001:db8:1::1/64 dev eth0 nodad");
    peer.ip("addr add 10.9.1.2/24 dev srv0");
    peer.ip("addr add 2001:db8:1::2/64 dev srv0 nodad");
    peer
}

async fn start(state: &StateDir) -> (NetHandle, UnboundedReceiver<NetEvent>) {
    Net::start(vec!["eth0".into()], state.0.clone()).await.unwrap()
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn mac(resolution: &Resolution) -> Option<[u8; 6]> {
    resolution.path.and_then(|path| path.dst_mac)
}

#[test]
fn a_neighbour_is_resolved_in_both_families() {
    in_namespace(async || {
        let (_peer, state) = (one_server(), StateDir::new());
        let (net, mut news) = start(&state).await;
        net.watch(addresses(&["10.9.1.2"]));
        let v4 = path_event(&mut news, "10.9.1.2", |r| r.problem.is_none()).await;
        let ifindex = net.links().iter().find(|link| link.name == "eth0").unwrap().ifindex;
        let wanted = Path {
            ifindex,
            vlan: 0,
            src_mac: [2, 0, 0, 0, 1, 1],
            dst_mac: Some(SERVER),
            on_link: true,
            source: Some("10.9.1.1".parse().unwrap()),
        };
        assert_eq!(v4.path, Some(wanted));
        net.watch(addresses(&["10.9.1.2", "2001:db8:1::2"]));
        let v6 = path_event(&mut news, "2001:db8:1::2", |r| r.problem.is_none()).await;
        let source = Some("2001:db8:1::1".parse().unwrap());
        assert_eq!(v6.path, Some(Path { source, ..wanted }));
    });
}

#[test]
fn a_server_that_changes_its_mac_is_followed() {
    in_namespace(async || {
        let (peer, state) = (one_server(), StateDir::new());
        let (net, mut news) = start(&state).await;
        net.watch(addresses(&["10.9.1.2"]));
        path_event(&mut news, "10.9.1.2", |r| mac(r) == Some(SERVER)).await;
        let new = [2, 0, 0, 0, 2, 0x77];
        peer.run(move || {
            ip("link set srv0 address 02:00:00:00:02:77");
            let index = nix::net::if_::if_nametoindex("srv0").unwrap();
            let socket = announce::sender().unwrap();
            announce::burst(&socket, [10, 9, 1, 2].into(), index, "srv0", new).unwrap();
        });
        let changed = path_event(&mut news, "10.9.1.2", |_| true).await;
        assert_eq!(mac(&changed), Some(new), "one event, straight to the new address");
    });
}

#[test]
fn a_route_through_a_gateway_gives_the_gateways_mac() {
    in_namespace(async || {
        let (_peer, state) = (one_server(), StateDir::new());
        ip("route add 192.0.2.0/24 via 10.9.1.2");
        ip("route add 2001:db8:99::/64 via 2001:db8:1::2");
        let (net, mut news) = start(&state).await;
        net.watch(addresses(&["192.0.2.5", "2001:db8:99::5"]));
        let v4 = path_event(&mut news, "192.0.2.5", |r| r.problem.is_none()).await;
        assert_eq!((mac(&v4), v4.path.unwrap().on_link), (Some(SERVER), false));
        net.watch(addresses(&["192.0.2.5"]));
        ip("route del 192.0.2.0/24");
        let gone = path_event(&mut news, "192.0.2.5", |r| r.path.is_none()).await;
        assert_eq!(gone.problem.as_deref(), Some("no route to 192.0.2.5"));
        ip("route add 192.0.2.0/25 via 10.9.1.2");
        path_event(&mut news, "192.0.2.5", |r| mac(r) == Some(SERVER)).await;
    });
}

#[test]
fn what_cannot_be_reached_is_said_in_words() {
    in_namespace(async || {
        let (_peer, state) = (one_server(), StateDir::new());
        ip("route add blackhole 198.51.100.0/24");
        let (net, mut news) = start(&state).await;
        let list = ["10.9.1.1", "203.0.113.1", "198.51.100.1", "127.0.0.5", "2001:db8:1::1"];
        net.watch(addresses(&list));
        let NetEvent::PathsChanged(told) =
            event(&mut news, |e| matches!(e, NetEvent::PathsChanged(_))).await
        else {
            unreachable!()
        };
        let words = [
            "10.9.1.1 is an address of this host",
            "no route to 203.0.113.1",
            "a route discards packets to 198.51.100.1 (blackhole)",
            "127.0.0.5 is an address of this host",
            "2001:db8:1::1 is an address of this host",
        ];
        for (address, problem) in list.into_iter().zip(words) {
            let address: IpAddr = address.parse().unwrap();
            let wanted = Resolution { path: None, problem: Some(problem.into()) };
            assert!(told.contains(&(address, wanted)), "{problem} is not in {told:?}");
        }
    });
}

#[test]
fn silence_is_reported_and_an_answer_ends_it() {
    in_namespace(async || {
        let (peer, state) = (one_server(), StateDir::new());
        sysctl("net/ipv4/neigh/eth0/retrans_time_ms", "100");
        let (net, mut news) = start(&state).await;
        net.watch(addresses(&["10.9.1.9"]));
        let first = path_event(&mut news, "10.9.1.9", |_| true).await;
        assert_eq!(
            first.problem.as_deref(),
            Some("10.9.1.9 has not answered ARP on eth0 yet"),
            "an address is reported at once, resolved or not"
        );
        let silent = path_event(&mut news, "10.9.1.9", |_| true).await;
        assert_eq!(silent.problem.as_deref(), Some("10.9.1.9 does not answer ARP on eth0"));
        assert!(silent.path.unwrap().on_link);
        peer.ip("addr add 10.9.1.9/24 dev srv0");
        let answered = path_event(&mut news, "10.9.1.9", |_| true).await;
        assert_eq!(mac(&answered), Some(SERVER));
    });
}

#[test]
fn a_flushed_or_stale_neighbour_is_no_news_and_is_made_fresh() {
    in_namespace(async || {
        let (peer, state) = (one_server(), StateDir::new());
        sysctl("net/ipv4/neigh/eth0/delay_first_probe_time", "1");
        let (net, mut news) = start(&state).await;
        net.watch(addresses(&["10.9.1.2"]));
        path_event(&mut news, "10.9.1.2", |r| mac(r) == Some(SERVER)).await;
        let reachable = || ip_output("neigh show 10.9.1.2 dev eth0").contains("REACHABLE");
        ip("neigh flush dev eth0");
        until("the flushed entry is asked for", reachable).await;
        drop((net, news));
        // A second task, that finds the entry stale and does not know since when.
        ip("neigh replace 10.9.1.2 lladdr 02:00:00:00:02:01 dev eth0 nud stale");
        let (net, mut news) = start(&state).await;
        net.watch(addresses(&["10.9.1.2"]));
        let first = path_event(&mut news, "10.9.1.2", |_| true).await;
        assert_eq!(mac(&first), Some(SERVER), "a stale address is as good as any");
        until("the stale entry is asked for", reachable).await;
        peer.ip("addr add 10.9.1.3/24 dev srv0");
        net.watch(addresses(&["10.9.1.2", "10.9.1.3"]));
        path_event(&mut news, "10.9.1.3", |r| mac(r).is_some()).await;
        while let Ok(event) = news.try_recv() {
            if let NetEvent::PathsChanged(changes) = event {
                let server: IpAddr = "10.9.1.2".parse().unwrap();
                assert!(changes.iter().all(|(address, _)| *address != server), "{changes:?}");
            }
        }
    });
}

#[test]
fn a_link_that_goes_down_takes_the_way_along_and_brings_it_back() {
    in_namespace(async || {
        let (peer, state) = (one_server(), StateDir::new());
        let (net, mut news) = start(&state).await;
        net.watch(addresses(&["10.9.1.2"]));
        path_event(&mut news, "10.9.1.2", |r| mac(r).is_some()).await;
        peer.ip("link set srv0 down");
        let down = path_event(&mut news, "10.9.1.2", |r| mac(r).is_none()).await;
        let words = down.problem.unwrap();
        assert_eq!(words, "eth0, the way to 10.9.1.2, has no carrier");
        peer.ip("link set srv0 up");
        path_event(&mut news, "10.9.1.2", |r| mac(r) == Some(SERVER)).await;
        ip("link set eth0 down");
        let down = path_event(&mut news, "10.9.1.2", |r| r.path.is_none()).await;
        assert_eq!(down.problem.as_deref(), Some("no route to 10.9.1.2"));
        ip("link set eth0 up");
        path_event(&mut news, "10.9.1.2", |r| mac(r) == Some(SERVER)).await;
        ip("link set eth0 mtu 1400");
        event(&mut news, |e| matches!(e, NetEvent::LinkChanged(l) if l.mtu == 1400)).await;
        ip("link del eth0");
        event(&mut news, |e| matches!(e, NetEvent::LinkGone(l) if l.name == "eth0")).await;
        path_event(&mut news, "10.9.1.2", |r| r.path.is_none()).await;
    });
}
#[test]
fn ten_thousand_servers_and_a_thousand_vips_are_no_long_wait() {
    in_namespace(async || {
        let (_peer, state) = (one_server(), StateDir::new());
        ip("route add 10.0.0.0/8 via 10.9.1.2");
        let (net, mut news) = start(&state).await;
        let address = |base: u32, n: u32| IpAddr::from((base + n).to_be_bytes());
        net.watch((0..10_000).map(|n| address(0x0a40_0000, n)).collect());
        // Thirty times what it takes, for machines that are busy.
        let limit = Duration::from_secs(6);
        let resolved = async {
            let mut left: HashSet<IpAddr> = (0..10_000).map(|n| address(0x0a40_0000, n)).collect();
            while !left.is_empty() {
                if let Some(NetEvent::PathsChanged(changes)) = news.recv().await {
                    changes.iter().filter(|(_, r)| r.problem.is_none()).for_each(|(a, _)| {
                        left.remove(a);
                    });
                }
            }
        };
        timeout(limit, resolved).await.expect("all are resolved");
        let vip = |n| Vip { address: address(0x0a09_0200, n), preferred_interface: None };
        let problems = net.set_vips((0..1000).map(vip).collect());
        assert_eq!(timeout(limit, problems).await.expect("all are placed").unwrap(), []);
        assert_eq!(net.addresses().iter().filter(|a| a.prefix_length == 32).count(), 1000);
    });
}
