//! A real server's process dies: new connections avoid it, and its clients are told.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::lab::{Arms, Medlb, Method, Site, find, wait_for};

const PORT: u16 = 7000;
const LABEL: &str = "Archive";

fn fails_over(method: Method, arms: Arms) -> Result<()> {
    let site = Site::build(method, arms, 2)?;
    let mut servers = site.serve(PORT)?;
    let medlb = Medlb::start(&site, &site.config(&site.service(LABEL, "7000", &[])))?;
    medlb.wait_health(LABEL, &["up", "up"])?;

    let killed = Instant::now();
    servers[0].kill()?;
    medlb.wait_health(LABEL, &["down", "up"])?;
    // interval 1 s, fall 2; while falling at half the interval, never under 1 s.
    let took = killed.elapsed();
    ensure!(took < Duration::from_secs(4), "detected only after {took:?}");
    let status = medlb.status()?;
    let server = &find(&status, LABEL).expect("the service")["real_servers"][0];
    ensure!(server["health"] == "down" && server["effective"] == "out", "{server:#}");
    ensure!(server["last_check"]["result"] != "pass", "{server:#}");

    let report = site.fetch("fetch", PORT, "--connections 20 --upload 10000 --download 10000")?;
    ensure!(report["servers"]["s2"] == 20, "{report}");

    servers[0] = site.serve_one(0, "serve", PORT)?;
    medlb.wait_health(LABEL, &["up", "up"])?;
    let report = site.fetch("fetch", PORT, "--connections 20 --upload 10000")?;
    ensure!(report["servers"]["s1"].as_u64() > Some(0), "the server got nothing back: {report}");
    site.check_counters()
}

#[test]
fn dr_new_connections_avoid_a_dead_server_and_return_to_it() -> Result<()> {
    fails_over(Method::Dr, Arms::One)
}

#[test]
fn nat_new_connections_avoid_a_dead_server_and_return_to_it() -> Result<()> {
    fails_over(Method::Nat, Arms::Two)
}

#[test]
fn snat_new_connections_avoid_a_dead_server_and_return_to_it() -> Result<()> {
    fails_over(Method::Snat, Arms::Two)
}

/// The whole machine disappears: no FIN and no RST comes from it, medlb has to send one.
fn established_are_reset(method: Method, arms: Arms) -> Result<()> {
    let site = Site::build(method, arms, 1)?;
    let _servers = site.serve(PORT)?;
    let medlb = Medlb::start(&site, &site.config(&site.service(LABEL, "7000", &[])))?;
    medlb.wait_health(LABEL, &["up"])?;
    let mut client = site.begin("fetch", PORT, "--upload 100000000 --seconds 50")?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(client.running(), "{}", client.log());
    site.servers[0].ip("link set eth0 down")?;
    let unplugged = Instant::now();
    medlb.wait_health(LABEL, &["down"])?;
    let ended = wait_for("the client's connection to end", Duration::from_secs(10), || {
        Ok((!client.running()).then(|| unplugged.elapsed()))
    });
    ensure!(ended.is_ok(), "{ended:?}; {}", medlb.ask(&["stats"])?);
    let log = client.log();
    ensure!(log.contains("reset"), "not by a reset: {log}");
    Ok(())
}

#[test]
fn dr_clients_of_a_lost_server_are_reset() -> Result<()> {
    established_are_reset(Method::Dr, Arms::One)
}

#[test]
fn nat_clients_of_a_lost_server_are_reset() -> Result<()> {
    established_are_reset(Method::Nat, Arms::Two)
}

#[test]
fn snat_clients_of_a_lost_server_are_reset() -> Result<()> {
    established_are_reset(Method::Snat, Arms::One)
}

#[test]
fn with_no_server_left_a_client_is_refused_at_once() -> Result<()> {
    let site = Site::build(Method::Nat, Arms::Two, 1)?;
    let medlb = Medlb::start(&site, &site.config(&site.service(LABEL, "7000", &[])))?;
    medlb.wait_health(LABEL, &["down"])?;
    medlb.wait_state(LABEL, "red")?;
    let started = Instant::now();
    let mut client = site.begin("fetch", PORT, "--upload 1000")?;
    client.wait(Duration::from_secs(20))?;
    ensure!(client.log().contains("refused"), "{}", client.log());
    ensure!(started.elapsed() < Duration::from_secs(5), "only after {:?}", started.elapsed());
    let stats = medlb.stats()?;
    let drops = &find(&stats, LABEL).expect("the service")["drops"]["no_usable_server"];
    ensure!(drops.as_u64() > Some(0), "{stats:#}");
    Ok(())
}
