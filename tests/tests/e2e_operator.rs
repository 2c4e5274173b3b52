//! What an operator relies on: `on_down: keep`, idle time-outs, `explain` and `check-now`.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::lab::{Arms, Medlb, Method, Site, find, real, report, wait_for};

const PORT: u16 = 7000;
const LABEL: &str = "Archive";
const FIRST: &str = "Archive-1";

/// The check looks at a port of its own, so that it can fail while connections go on.
fn keeps(method: Method, arms: Arms) -> Result<()> {
    let site = Site::build(method, arms, 2)?;
    let _servers = site.serve(PORT)?;
    let mut checked = site.serve(7009)?;
    let more = [
        "scheduler: rr",
        "health_check: {type: connect, port: 7009}",
        "on_down: {established: keep}",
    ];
    let medlb = Medlb::start(&site, &site.config(&site.service(LABEL, "7000", &more)))?;
    medlb.wait_state(LABEL, "green")?;
    let load = "--connections 2 --upload 2000000 --download 500000 --seconds 5";
    let mut client = site.begin("fetch", PORT, load)?;
    wait_for("both connections", Duration::from_secs(5), || {
        let active = find(&medlb.status()?, LABEL).map(|s| s["active_connections"] == 2);
        Ok(active.filter(|both| *both))
    })?;
    checked[0].kill()?;
    medlb.wait_state(LABEL, "yellow")?;
    let fresh = site.fetch("fetch", PORT, "--connections 10 --upload 1000")?;
    ensure!(fresh["servers"]["s2"] == 10, "new connections avoid it: {fresh}");
    ensure!(client.running(), "too short to prove anything: {}", client.log());
    let kept = report(&mut client)?;
    ensure!(kept["servers"]["s1"] == 1 && kept["servers"]["s2"] == 1, "{kept}");
    site.check_counters()
}

#[test]
fn dr_on_down_keep_lets_established_connections_finish() -> Result<()> {
    keeps(Method::Dr, Arms::One)
}

#[test]
fn nat_on_down_keep_lets_established_connections_finish() -> Result<()> {
    keeps(Method::Nat, Arms::Two)
}

/// A connection that says nothing; Python, because the traffic program always does.
const SILENT: &str = "import socket, sys, time\n\
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n\
    time.sleep(60)";

#[test]
fn an_idle_connection_is_forgotten_after_the_services_idle_timeout() -> Result<()> {
    let site = Site::build(Method::Nat, Arms::Two, 1)?;
    let _servers = site.serve(PORT)?;
    let service = site.service(LABEL, "7000", &["idle_timeout: 5s"]);
    let medlb = Medlb::start(&site, &site.config(&service))?;
    medlb.wait_state(LABEL, "green")?;
    let (vip, port) = (site.vip.to_string(), PORT.to_string());
    let began = Instant::now();
    let _silent = site.client.spawn("silent", "/usr/bin/python3", &["-c", SILENT, &vip, &port])?;
    // Beside it one that is never silent for 5 s lives on.
    let mut busy = site.begin("fetch", PORT, "--upload 1000000 --seconds 20")?;
    let active = || -> Result<u64> {
        let status = medlb.status()?;
        Ok(real(&status, LABEL, FIRST)?["active_connections"].as_u64().unwrap_or(99))
    };
    wait_for("both connections", Duration::from_secs(5), || Ok((active()? == 2).then_some(())))?;
    std::thread::sleep(Duration::from_secs(3));
    let both = active()? == 2;
    ensure!(both || began.elapsed() > Duration::from_secs(5), "forgotten too early");
    wait_for("the silent one to be forgotten", Duration::from_secs(18), || {
        Ok((active()? == 1).then_some(()))
    })?;
    let flows: Value = serde_json::from_str(&medlb.ask(&["connections", "--json"])?)?;
    let left = flows["connections"].as_array().map_or(0, Vec::len);
    ensure!(left == 1, "{flows:#}");
    report(&mut busy)?;
    Ok(())
}

/// How many lines the data path has logged.
fn lines(medlb: &Medlb) -> usize {
    medlb.log().lines().filter(|line| line.contains("packet not forwarded")).count()
}

#[test]
fn the_data_path_logs_what_it_did_not_forward_only_when_asked() -> Result<()> {
    let site = Site::build(Method::Dr, Arms::One, 1)?;
    let config = site.config(&site.service(LABEL, "7000", &[]));
    let mut medlb = Medlb::prepare(&site, &config)?;
    medlb.log_level = "info,medlb::datapath=trace";
    medlb.launch()?;
    medlb.wait_state(LABEL, "red")?;
    let refuse = || site.fetch("fetch", PORT, "--connections 1 --upload 1000");
    ensure!(refuse().is_err(), "nobody listens");
    wait_for("the reason in the log", Duration::from_secs(10), || {
        let log = medlb.log();
        let found = log.lines().any(|line| {
            line.contains("packet not forwarded")
                && line.contains("verdict=\"refused_reset\"")
                && line.contains("interface=\"eth0\"")
        });
        Ok(found.then_some(()))
    })
    .map_err(|error| error.context(medlb.log()))?;
    // The next daemon exchanges the program for one without these statements.
    medlb.stop()?;
    medlb.log_level = "debug";
    medlb.launch()?;
    medlb.wait_state(LABEL, "red")?;
    let before = medlb.stats()?["verdicts"]["refused_reset"].as_u64();
    ensure!(refuse().is_err(), "nobody listens");
    ensure!(medlb.stats()?["verdicts"]["refused_reset"].as_u64() > before, "refused by medlb");
    medlb.stop()?;
    ensure!(lines(&medlb) == 0, "{}", medlb.log());
    Ok(())
}

fn json(medlb: &Medlb, arguments: &[&str]) -> Result<Value> {
    let output = medlb.output(&[arguments, &["--json"]].concat())?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn explain_and_check_now_say_why_a_server_is_in_or_out() -> Result<()> {
    let site = Site::build(Method::Snat, Arms::One, 2)?;
    let mut servers = site.serve(PORT)?;
    let service = site.service(LABEL, "7000", &["persistence: {timeout: 1h}"]);
    let service = service.replace("Archive-1,", "Archive-1, maximum_connections: 50,");
    let medlb = Medlb::start(&site, &site.config(&service))?;
    medlb.wait_state(LABEL, "green")?;
    site.fetch("fetch", PORT, "--connections 3 --upload 1000")?;

    let told = json(&medlb, &["check-now", LABEL, FIRST])?;
    ensure!(told["service"] == LABEL && told["real_server"] == FIRST, "{told:#}");
    ensure!(told["check"]["result"] == "pass" && told["health"] == "up", "{told:#}");
    ensure!(told["check"]["phase"] == "connect", "{told:#}");
    ensure!(told["check"]["duration_ms"].as_f64() > Some(0.0), "{told:#}");
    let words = medlb.ask(&["check-now", LABEL, FIRST])?;
    ensure!(words.starts_with("Archive / Archive-1: pass at connect: "), "{words}");

    let told = json(&medlb, &["explain", LABEL, FIRST])?;
    ensure!(told["real_server"]["effective"] == "in_rotation", "{told:#}");
    ensure!(told["reasons"][0] == "it is healthy, online and reachable", "{told:#}");
    let history = told["history"].as_array().map_or(0, Vec::len);
    ensure!((2..=20).contains(&history), "{told:#}");
    ensure!(told["path"]["interface"] == "eth0" && told["path"]["on_link"] == true, "{told:#}");
    ensure!(told["next_check"].is_string(), "{told:#}");
    ensure!(told["maximum_connections"] == 50, "{told:#}");
    // The only client is on one of the two.
    let other = json(&medlb, &["explain", LABEL, "Archive-2"])?;
    let clients = |told: &Value| told["persistence_entries"].as_u64().unwrap_or(99);
    ensure!(clients(&told) + clients(&other) == 1, "{told:#} {other:#}");
    let words = medlb.ask(&["explain", LABEL, FIRST])?;
    ensure!(words.contains("50 connections") && words.contains(" clients"), "{words}");

    servers[0].kill()?;
    medlb.wait_state(LABEL, "yellow")?;
    let output = medlb.output(&["check-now", LABEL, FIRST])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(words.contains("fail at connect: connection refused"), "{words}");
    ensure!(words.contains("health: down"), "{words}");
    let words = medlb.ask(&["explain", LABEL, FIRST])?;
    ensure!(words.contains("Archive / Archive-1: out"), "{words}");
    ensure!(words.contains("its health check fails: connection refused"), "{words}");

    medlb.ask(&["halt", LABEL, "Archive-2"])?;
    let words = medlb.ask(&["explain", LABEL, "Archive-2"])?;
    ensure!(words.contains("an operator halted it"), "{words}");
    let output = medlb.output(&["explain", LABEL, "Archive-3"])?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(words.contains("Archive-3"), "{words}");
    Ok(())
}
