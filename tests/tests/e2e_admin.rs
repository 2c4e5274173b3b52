//! Drain, halt and online: what an operator does before work on a server.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Arms, Medlb, Method, Process, Site, real, report, wait_for};

const PORT: u16 = 7000;
const LABEL: &str = "Archive";
const FIRST: &str = "Archive-1";
/// The client's address and port of the connection whose tuple is used again.
const REUSED: u16 = 33000;

struct Running {
    medlb: Medlb,
    _servers: Vec<Process>,
    site: Site,
}

fn start(method: Method, arms: Arms, more: &[&str]) -> Result<Running> {
    let site = Site::build(method, arms, 2)?;
    let servers = site.serve(PORT)?;
    let medlb = Medlb::start(&site, &site.config(&site.service(LABEL, "7000", more)))?;
    medlb.wait_state(LABEL, "green")?;
    Ok(Running { medlb, _servers: servers, site })
}

impl Running {
    /// Active connections of the first server.
    fn active(&self) -> Result<u64> {
        let status = self.medlb.status()?;
        real(&status, LABEL, FIRST)?["active_connections"].as_u64().context("no count")
    }

    fn is(&self, admin: &str, effective: &str) -> Result<()> {
        let status = self.medlb.status()?;
        let server = real(&status, LABEL, FIRST)?;
        ensure!(server["admin"] == admin && server["effective"] == effective, "{server:#}");
        Ok(())
    }

    /// Which server takes a connection from the client's port `REUSED`. It is closed with a RST.
    fn who(&self) -> Result<String> {
        let script = "import socket, struct, sys\n\
            s = socket.socket()\n\
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n\
            s.settimeout(10)\n\
            s.bind(('', int(sys.argv[2])))\n\
            s.connect((sys.argv[1], int(sys.argv[3])))\n\
            s.sendall(bytes(32))\n\
            print(s.recv(2).decode())";
        let (vip, from, to) = (self.site.vip.to_string(), REUSED.to_string(), PORT.to_string());
        let arguments = ["-c", script, &vip, &from, &to];
        Ok(self.site.client.run("/usr/bin/python3", &arguments)?.trim().to_owned())
    }
}

fn drains(method: Method, arms: Arms) -> Result<()> {
    let mut running = start(method, arms, &["scheduler: rr"])?;
    let mut idle =
        running.site.begin("fetch", PORT, "--connections 10 --upload 1000000 --seconds 9")?;
    wait_for("ten connections", Duration::from_secs(10), || {
        Ok((running.active()? == 5).then_some(()))
    })?;
    let said = running.medlb.ask(&["drain", LABEL, FIRST])?;
    ensure!(said.contains("online -> drain, 5 active connections"), "{said}");
    running.is("drain", "draining")?;

    let load = "--connections 40 --upload 1000";
    let fresh = running.site.fetch("fetch", PORT, load)?;
    ensure!(fresh["servers"]["s2"] == 40, "new connections to a drained server: {fresh}");
    ensure!(running.active()? == 5, "established connections left: {}", running.active()?);
    running.medlb.crash()?;
    let without = running.site.fetch("fetch", PORT, load)?;
    ensure!(without["servers"]["s2"] == 40, "{without}");
    running.medlb.launch()?;
    running.is("drain", "draining")?;
    let fresh = running.site.fetch("fetch", PORT, load)?;
    ensure!(fresh["servers"]["s2"] == 40, "the drain did not survive a restart: {fresh}");

    let all = report(&mut idle)?;
    ensure!(all["ok"] == 10 && all["servers"]["s1"] == 5, "established ones must finish: {all}");
    running.medlb.ask(&["drain", LABEL, FIRST, "--wait", "--timeout", "10s"])?;
    ensure!(running.active()? == 0, "{}", running.active()?);

    running.medlb.ask(&["online", LABEL, FIRST])?;
    running.is("online", "in_rotation")?;
    let back = running.site.fetch("fetch", PORT, load)?;
    ensure!(back["servers"]["s1"] == 20, "back in rotation: {back}");
    running.site.check_counters()
}

#[test]
fn dr_a_drained_server_keeps_what_it_has_and_gets_nothing_new() -> Result<()> {
    drains(Method::Dr, Arms::One)
}

#[test]
fn nat_a_drained_server_keeps_what_it_has_and_gets_nothing_new() -> Result<()> {
    drains(Method::Nat, Arms::Two)
}

#[test]
fn snat_a_drained_server_keeps_what_it_has_and_gets_nothing_new() -> Result<()> {
    drains(Method::Snat, Arms::One)
}

#[test]
fn a_drained_servers_persistent_clients_go_elsewhere() -> Result<()> {
    let running = start(Method::Dr, Arms::One, &["persistence: {timeout: 1h}"])?;
    let load = "--connections 10 --upload 1000";
    let before = running.site.fetch("fetch", PORT, load)?;
    let (first, other) = if before["servers"]["s1"] == 10 { ("1", "s2") } else { ("2", "s1") };
    ensure!(before["servers"].as_object().is_some_and(|all| all.len() == 1), "{before}");
    running.medlb.ask(&["drain", LABEL, &format!("{LABEL}-{first}")])?;
    let after = running.site.fetch("fetch", PORT, load)?;
    ensure!(after["servers"][other] == 10, "persistence is stronger than drain: {after}");
    running.site.check_counters()
}

/// The client's machine lost power: no FIN and no RST ever came. Later it uses the port again.
fn a_reused_port_avoids_it(method: Method, arms: Arms) -> Result<()> {
    let running = start(method, arms, &["scheduler: rr"])?;
    let client = &running.site.client;
    for word in [
        "add table ip lost",
        "add chain ip lost out { type filter hook output priority 0; }",
        "add rule ip lost out tcp flags & (rst | fin) != 0 drop",
    ] {
        client.run("nft", &[word])?;
    }
    wait_for("a connection to the first server", Duration::from_secs(10), || {
        if running.who()? == "s1" {
            return Ok(Some(()));
        }
        client.run("nft", &["flush", "chain", "ip", "lost", "out"])?;
        running.who()?; // its RST ends what the tuple had
        client.run("nft", &["add rule ip lost out tcp flags & (rst | fin) != 0 drop"])?;
        Ok(None)
    })?;
    ensure!(running.active()? == 1, "the connection is gone: {}", running.active()?);
    running.medlb.ask(&["drain", LABEL, FIRST])?;
    let taken = running.who()?;
    ensure!(taken == "s2", "a SYN on an old tuple went to the drained server");
    ensure!(running.active()? == 0, "the old connection still counts");
    Ok(())
}

#[test]
fn dr_a_syn_on_the_tuple_of_a_drained_servers_connection_selects_again() -> Result<()> {
    a_reused_port_avoids_it(Method::Dr, Arms::One)
}

#[test]
fn nat_a_syn_on_the_tuple_of_a_drained_servers_connection_selects_again() -> Result<()> {
    a_reused_port_avoids_it(Method::Nat, Arms::Two)
}

#[test]
fn halt_resets_what_the_server_has() -> Result<()> {
    let mut running = start(Method::Snat, Arms::One, &["scheduler: rr"])?;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(running.site.begin("fetch", PORT, "--upload 1000000 --seconds 8")?);
    }
    wait_for("two connections", Duration::from_secs(10), || {
        let status = running.medlb.status()?;
        let on = |label: &str| {
            Ok::<_, anyhow::Error>(real(&status, LABEL, label)?["active_connections"] == 1)
        };
        Ok((on(FIRST)? && on("Archive-2")?).then_some(()))
    })?;
    running.medlb.ask(&["halt", LABEL, FIRST])?;
    running.is("halt", "out")?;
    let reset = wait_for("a client to be reset", Duration::from_secs(4), || {
        Ok(clients.iter_mut().position(|client| !client.running()))
    })?;
    let log = clients[reset].log();
    ensure!(log.contains("reset"), "not by a reset: {log}");
    let other = report(&mut clients[1 - reset])?;
    ensure!(other["servers"]["s2"] == 1, "{other}");
    running.medlb.crash()?;
    running.medlb.launch()?;
    running.is("halt", "out")?;
    running.medlb.ask(&["online", LABEL, FIRST])?;
    // The new daemon knows of the server only that it was out: its first check decides.
    running.medlb.wait_state(LABEL, "green")?;
    let back = running.site.fetch("fetch", PORT, "--connections 10 --upload 1000")?;
    ensure!(back["servers"]["s1"] == 5, "{back}");
    Ok(())
}
