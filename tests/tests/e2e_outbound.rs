//! Outbound SNAT: connections that real servers open themselves, to named ports, reach their peers
//! from the configured address, and nothing else does.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::{Arms, Medlb, Method, Netns, Process, Site, report, sibling, wait_for};

/// The real server's peers listen here; the first is in the rule.
const NAMED: u16 = 7104;
const OTHER: u16 = 7105;
/// Nobody has it before medlb does.
const TO_SOURCE: &str = "10.77.1.50";
const LABEL: &str = "Archive";

#[test]
fn one_arm_server_connections_leave_with_the_configured_source() -> Result<()> {
    leave_with_the_configured_source(Arms::One)
}

#[test]
fn two_arm_server_connections_leave_with_the_configured_source() -> Result<()> {
    leave_with_the_configured_source(Arms::Two)
}

fn leave_with_the_configured_source(arms: Arms) -> Result<()> {
    let site = Site::build(Method::Nat, arms, 2)?;
    // What the kernel routes can be answered, too.
    site.client.ip("route add 10.77.2.0/24 via 10.77.1.2")?;
    // Else, with one arm, the kernel tells the servers of the way around medlb (ICMP redirect).
    for interface in ["all", "eth0"] {
        site.lb.sysctl(&format!("ipv4/conf/{interface}/send_redirects"), 0)?;
    }
    let _servers = site.serve(7000)?;
    let _peers = [listen(&site.client, NAMED)?, listen(&site.client, OTHER)?];
    let services = site.config(&site.service(LABEL, "7000", &[]));
    let rule = format!(
        "outbound_snat:\n  - {{sources: [{}], ports: \"104,{NAMED}\", to_source: {TO_SOURCE}}}\n",
        site.addresses[0]
    );
    let mut medlb = Medlb::start(&site, &format!("{services}{rule}"))?;
    medlb.wait_state(LABEL, "green")?;

    let own = site.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    ensure!(seen(&site, 0, NAMED)? == TO_SOURCE);
    ensure!(seen(&site, 0, OTHER)? == own[0], "a port without a rule");
    ensure!(seen(&site, 1, NAMED)? == own[1], "a server without a rule");

    // A connection outlives the daemon, which finds it again.
    let mut long = connect(&site, 0, NAMED, "--upload 4000000 --download 4000000 --seconds 4")?;
    peer(&site.client, NAMED)?;
    medlb.crash()?;
    medlb.launch()?;
    let listed = listed(&medlb)?;
    ensure!(listed["server"] == format!("10.77.1.10:{NAMED}"), "{listed}");
    ensure!(listed["client"].as_str().is_some_and(|c| c.starts_with(&own[0])), "{listed}");
    ensure!(listed["vip"].as_str().is_some_and(|v| v.starts_with(TO_SOURCE)), "{listed}");
    ensure!(report(&mut long)?["ok"] == 1);
    ensure!(seen(&site, 0, NAMED)? == TO_SOURCE, "after a restart");

    // Many at once, every byte verified.
    let crowd = "--connections 100 --upload 50000 --download 50000";
    let all = report(&mut connect(&site, 0, NAMED, crowd)?)?;
    ensure!(all["ok"] == 100, "{all}");
    site.check_counters()?;

    // Without the rule, without the address.
    let output = medlb.reload(&services)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    ensure!(seen(&site, 0, NAMED)? == own[0], "the rule is gone");
    wait_for("the address to go", Duration::from_secs(5), || {
        Ok((!site.lb.ip("-o addr show")?.contains(TO_SOURCE)).then_some(()))
    })?;

    medlb.stop()?;
    medlb.teardown()?;
    Ok(())
}

/// Tells whoever connects, or sends a datagram, which address it has from here.
const WHO: &str = "import socket, threading\n\
    def serve(kind):\n\
    \x20   s = socket.socket(socket.AF_INET6, kind)\n\
    \x20   s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
    \x20   s.bind(('::', 7104))\n\
    \x20   if kind == socket.SOCK_STREAM: s.listen()\n\
    \x20   print('listening', flush=True)\n\
    \x20   while True:\n\
    \x20       if kind == socket.SOCK_STREAM:\n\
    \x20           c, peer = s.accept()\n\
    \x20           c.sendall(peer[0].encode())\n\
    \x20           c.close()\n\
    \x20       else:\n\
    \x20           _, peer = s.recvfrom(2048)\n\
    \x20           s.sendto(peer[0].encode(), peer)\n\
    threading.Thread(target=serve, args=[socket.SOCK_STREAM]).start()\n\
    serve(socket.SOCK_DGRAM)";
/// Asks it; a datagram is sent again when the answer is late.
const ASK: &str = "import socket, sys\n\
    kind = socket.SOCK_STREAM if sys.argv[1] == 'tcp' else socket.SOCK_DGRAM\n\
    family = socket.AF_INET6 if ':' in sys.argv[2] else socket.AF_INET\n\
    s = socket.socket(family, kind)\n\
    s.settimeout(3)\n\
    try:\n\
    \x20   s.connect((sys.argv[2], int(sys.argv[3])))\n\
    \x20   s.send(b'who am I?')\n\
    \x20   print(s.recv(100).decode().removeprefix('::ffff:'))\n\
    except ConnectionRefusedError:\n\
    \x20   print('refused')";

#[test]
fn datagrams_and_ipv6_leave_with_the_configured_source_and_errors_come_back() -> Result<()> {
    const SOURCE6: &str = "fd77:0:0:1::50";
    let site = Site::build(Method::Nat, Arms::Two, 1)?;
    let mut who = site.client.spawn("who", "/usr/bin/python3", &["-c", WHO])?;
    wait_for("the peer", Duration::from_secs(20), || {
        ensure!(who.running(), "it ended: {}", who.log());
        Ok((who.log().matches("listening").count() == 2).then_some(()))
    })?;
    let own6 = site.addresses6()[0];
    let rules = format!(
        "outbound_snat:\n  \
           - {{sources: [{0}], protocol: tcp+udp, ports: \"{NAMED}-{OTHER}\", to_source: {TO_SOURCE}}}\n  \
           - {{sources: [\"{own6}\"], protocol: tcp+udp, ports: \"{NAMED}-{OTHER}\", to_source: \"{SOURCE6}\"}}\n",
        site.addresses[0]
    );
    let services = site.config(&site.service(LABEL, "7000", &[]));
    let medlb = Medlb::start(&site, &format!("{services}{rules}"))?;
    for (peer, source) in [("10.77.1.10", TO_SOURCE), ("fd77:0:0:1::a", SOURCE6)] {
        for kind in ["udp", "tcp"] {
            let ask = |port: u16| {
                let port = port.to_string();
                site.servers[0].run("/usr/bin/python3", &["-c", ASK, kind, peer, &port])
            };
            // The first packets may find a next hop that nobody has asked for yet.
            let answer = wait_for("an answer", Duration::from_secs(40), || {
                ask(NAMED).map(Some).or_else(|_| Ok(None))
            })?;
            ensure!(answer.trim() == source, "{kind} to {peer}: {answer}");
            // Nobody listens there: an RST, or an ICMP error about the translated datagram.
            let answer = ask(OTHER)?;
            ensure!(answer.trim() == "refused", "{kind} to {peer}: {answer}");
        }
    }
    drop(medlb);
    site.check_counters()
}

fn listen(netns: &Netns, port: u16) -> Result<Process> {
    let address = format!("0.0.0.0:{port}");
    let arguments = ["serve", "--listen", &address, "--name", "peer"];
    let mut process = netns.spawn(&format!("serve-{port}"), sibling("traffic")?, &arguments)?;
    wait_for("the peer", Duration::from_secs(10), || {
        ensure!(process.running(), "it ended: {}", process.log());
        Ok(process.log().contains("listening").then_some(()))
    })?;
    Ok(process)
}

/// A real server's own connections to the client's machine.
fn connect(site: &Site, server: usize, port: u16, arguments: &str) -> Result<Process> {
    let to = format!("10.77.1.10:{port}");
    let mut all = vec!["fetch", "--to", &to];
    all.extend(arguments.split_whitespace());
    site.servers[server].spawn(&format!("outbound-{port}"), sibling("traffic")?, &all)
}

/// The address that the peer sees during a transfer from this server, which must succeed.
fn seen(site: &Site, server: usize, port: u16) -> Result<String> {
    let arguments = "--upload 300000 --download 300000 --seconds 1";
    let mut transfer = connect(site, server, port, arguments)?;
    let address = peer(&site.client, port)?;
    let report = report(&mut transfer)?;
    ensure!(report["ok"] == 1, "{report}");
    // The next question must not see this one's connection.
    wait_for("the connection to end", Duration::from_secs(5), || {
        Ok(established(&site.client, port)?.is_none().then_some(()))
    })?;
    Ok(address)
}

fn peer(netns: &Netns, port: u16) -> Result<String> {
    wait_for("a connection at the peer", Duration::from_secs(10), || established(netns, port))
}

/// Who is connected to this port.
fn established(netns: &Netns, port: u16) -> Result<Option<String>> {
    let filter = format!("sport = :{port}");
    let table = netns.run("ss", &["-Htn", "state", "established", &filter])?;
    let Some(line) = table.lines().next() else { return Ok(None) };
    let peer = line.split_whitespace().last().context("no peer in ss")?;
    let (address, _) = peer.rsplit_once(':').context("no port in ss")?;
    Ok(Some(address.trim_start_matches("[::ffff:").trim_end_matches(']').to_owned()))
}

/// The one connection that outbound SNAT has.
fn listed(medlb: &Medlb) -> Result<Value> {
    let service = format!("outbound_snat {TO_SOURCE}");
    wait_for("the connection in the list", Duration::from_secs(3), || {
        let all: Value = serde_json::from_str(&medlb.ask(&["connections", "--json"])?)?;
        let mut found = all["connections"].as_array().into_iter().flatten();
        let live = |c: &&Value| c["service"] == service && c["state"] == "established";
        let found = found.find(|&c| live(&c)).cloned();
        ensure!(found.is_some(), "{all:#}");
        Ok(found)
    })
}
