//! What happens when announcements come faster than they are read.

use std::fmt::Write;
use std::net::IpAddr;

use super::harness::{Peer, StateDir, event, in_namespace, ip, ip_batch, path_event};
use crate::net::{Net, NetEvent};

/// Small enough for the flood to overflow it in any case.
const TINY: usize = 4096;

#[test]
fn an_overflow_is_noticed_and_nothing_stays_unknown() {
    in_namespace(async || {
        let (peer, state) = (Peer::new(), StateDir::new());
        peer.connect("eth0", "srv0", 1);
        ip("addr add 10.9.0.1/16 dev eth0");
        peer.ip("addr add 10.9.0.2/16 dev srv0");
        let server: IpAddr = "10.9.0.2".parse().unwrap();
        let (net, mut news) =
            Net::start_with(vec!["eth0".into()], state.0.clone(), TINY).await.unwrap();
        net.watch(vec![server]);
        path_event(&mut news, "10.9.0.2", |r| r.problem.is_none()).await;
        let mut flood = String::new();
        for n in 0..5000 {
            let (high, low) = (1 + n / 250, 1 + n % 250);
            let lladdr = format!("02:bb:00:00:{high:02x}:{low:02x}");
            writeln!(flood, "neigh add 10.9.{high}.{low} lladdr {lladdr} dev eth0 nud permanent")
                .unwrap();
        }
        // These come last: their announcements are among those that were lost.
        flood += "neigh replace 10.9.0.2 lladdr 02:cc:00:00:00:01 dev eth0 nud permanent\n";
        flood += "link add late0 type veth peer name late1\naddr add 10.77.0.1/24 dev eth0\n";
        ip_batch(&flood); // Blocks the only thread, so nobody reads.
        let wanted = Some([2, 0xcc, 0, 0, 0, 1]);
        event(&mut news, |e| *e == NetEvent::Resynchronised).await;
        path_event(&mut news, "10.9.0.2", |r| r.path.unwrap().dst_mac == wanted).await;
        assert!(net.links().iter().any(|link| link.name == "late0"));
        assert!(net.addresses().iter().any(|a| a.address.to_string() == "10.77.0.1"));
        // And announcements are heard again.
        ip("neigh replace 10.9.0.2 lladdr 02:cc:00:00:00:02 dev eth0 nud permanent");
        let wanted = Some([2, 0xcc, 0, 0, 0, 2]);
        path_event(&mut news, "10.9.0.2", |r| r.path.unwrap().dst_mac == wanted).await;
    });
}
