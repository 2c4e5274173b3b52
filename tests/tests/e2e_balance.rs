//! Least-connection scheduling and connection limits, with real connections of mixed durations.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Arms, Medlb, Method, Process, Site, find, real, report, wait_for};

const PORT: u16 = 7000;
const LABEL: &str = "Archive";

fn reals(site: &Site, fields: &[&'static str]) -> Vec<(std::net::IpAddr, &'static str)> {
    site.addresses.iter().map(|&address| address.into()).zip(fields.iter().copied()).collect()
}

/// Active connections of each server.
fn active(medlb: &Medlb, servers: usize) -> Result<Vec<u64>> {
    let status = medlb.status()?;
    (1..=servers)
        .map(|number| {
            let server = real(&status, LABEL, &format!("{LABEL}-{number}"))?;
            server["active_connections"].as_u64().context("no count")
        })
        .collect()
}

/// Fails unless so many open connections are in these proportions, within 10 % of each one's share.
fn balanced(counts: &[u64], weights: &[u64], what: &str) -> Result<()> {
    within(0.1, counts, weights, what)
}

/// As [`balanced`], for all that servers have taken: less exact, since wlc evens out what is open at a
/// moment, and a server whose connections happen to be short gets more of them.
fn shared(counts: &[u64], weights: &[u64], what: &str) -> Result<()> {
    within(0.25, counts, weights, what)
}

fn within(share: f64, counts: &[u64], weights: &[u64], what: &str) -> Result<()> {
    let (all, weight): (u64, u64) = (counts.iter().sum(), weights.iter().sum());
    for (count, own) in counts.iter().zip(weights) {
        let due = all as f64 * *own as f64 / weight as f64;
        // Below a hundred a handful of connections that end meanwhile is already 10 %.
        let off = (*count as f64 - due).abs();
        ensure!(off <= (due * share).max(5.0), "{what}: {counts:?} for weights {weights:?}");
    }
    Ok(())
}

/// Connections of mixed durations; returns how many each server got.
fn burst(site: &Site, medlb: &Medlb, each: u64) -> Result<Vec<u64>> {
    let mut clients = Vec::new();
    for seconds in [0, 0, 1, 2, 3] {
        let load = format!("--connections {each} --upload 20000 --seconds {seconds}");
        clients.push(site.begin("fetch", PORT, &load)?);
    }
    let mut taken = vec![0; site.servers.len()];
    for client in &mut clients {
        let report = report(client).with_context(|| medlb.ask(&["stats"]).unwrap_or_default())?;
        for (number, count) in taken.iter_mut().enumerate() {
            *count += report["servers"][format!("s{}", number + 1)].as_u64().unwrap_or(0);
        }
    }
    Ok(taken)
}

/// Long connections, to be looked at while they are there.
fn crowd(site: &Site, connections: u64, seconds: u64) -> Result<Process> {
    let load = format!("--connections {connections} --upload 100000 --seconds {seconds}");
    site.begin("fetch", PORT, &load)
}

fn wait_active(medlb: &Medlb, servers: usize, total: u64) -> Result<Vec<u64>> {
    wait_for(&format!("{total} connections"), Duration::from_secs(20), || {
        let counts = active(medlb, servers)?;
        Ok((counts.iter().sum::<u64>() == total).then_some(counts))
    })
}

#[test]
fn wlc_stays_balanced_while_connections_and_servers_come_and_go() -> Result<()> {
    let site = Site::build(Method::Dr, Arms::One, 3)?;
    let _servers = site.serve(PORT)?;
    let fields = [", weight: 100", ", weight: 100", ", weight: 200"];
    let all = site.service_of(LABEL, "7000", &["scheduler: wlc"], &reals(&site, &fields));
    let two = site.service_of(LABEL, "7000", &["scheduler: wlc"], &reals(&site, &fields[..2]));
    let medlb = Medlb::start(&site, &site.config(&all))?;
    medlb.wait_state(LABEL, "green")?;

    let mut taken = vec![0; 3];
    for _ in 0..2 {
        let more = burst(&site, &medlb, 400)?;
        taken.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }
    shared(&taken, &[1, 1, 2], "4,000 connections")?;

    // A server goes, with all that it has still under way, and comes back by a drain…
    let mut long = crowd(&site, 1200, 14)?;
    balanced(&wait_active(&medlb, 3, 1200)?, &[1, 1, 2], "1,200 open connections")?;
    medlb.ask(&["drain", LABEL, "Archive-3"])?;
    let without = burst(&site, &medlb, 160)?;
    ensure!(without[2] == 0, "{without:?}");
    shared(&without[..2], &[1, 1], "with a server drained")?;
    medlb.ask(&["online", LABEL, "Archive-3"])?;
    let mut more = crowd(&site, 1200, 6)?;
    balanced(&wait_active(&medlb, 3, 2400)?, &[1, 1, 2], "2,400 open connections, all back")?;
    report(&mut more)?;
    report(&mut long)?;

    // … and by reloads.
    ensure!(medlb.reload(&site.config(&two))?.status.success(), "reload");
    let without = burst(&site, &medlb, 160)?;
    shared(&without[..2], &[1, 1], "with a server taken from the file")?;
    ensure!(without[2] == 0, "{without:?}");
    ensure!(medlb.reload(&site.config(&all))?.status.success(), "reload");
    medlb.wait_state(LABEL, "green")?;
    shared(&burst(&site, &medlb, 400)?, &[1, 1, 2], "2,000 connections after the reloads")?;
    wait_active(&medlb, 3, 0)?;
    let stats = medlb.stats()?;
    let begun = find(&stats, LABEL).context("no service")?["connections_total"].as_u64();
    ensure!(begun >= Some(10_000), "too few to say anything: {begun:?}");
    site.check_counters()
}

#[test]
fn maximum_connections_is_never_passed_and_holds_until_the_minimum() -> Result<()> {
    let site = Site::build(Method::Nat, Arms::Two, 2)?;
    let _servers = site.serve(PORT)?;
    let fields = [", maximum_connections: 10, minimum_connections: 4", ", maximum_connections: 20"];
    let service = site.service_of(LABEL, "7000", &["scheduler: wlc"], &reals(&site, &fields));
    let medlb = Medlb::start(&site, &site.config(&service))?;
    medlb.wait_state(LABEL, "green")?;

    let mut short = crowd(&site, 5, 5)?;
    let mut long = crowd(&site, 25, 10)?;
    ensure!(wait_active(&medlb, 2, 30)? == [10, 20], "{:?}", active(&medlb, 2)?);
    let started = Instant::now();
    let mut refused = site.begin("fetch", PORT, "--upload 1000")?;
    ensure!(!refused.wait(Duration::from_secs(10))?.success(), "a 31st connection");
    ensure!(refused.log().contains("refused"), "{}", refused.log());
    ensure!(started.elapsed() < Duration::from_secs(5), "only after {:?}", started.elapsed());

    // Some have ended: the second server takes new ones at once, the first not before it has
    // fallen to its minimum.
    report(&mut short)?;
    let counts = wait_active(&medlb, 2, 25)?;
    ensure!(counts[0] > 4 && counts[1] < 20, "{counts:?}");
    let between = site.fetch("fetch", PORT, "--upload 1000")?;
    ensure!(between["servers"]["s2"] == 1, "above its minimum a server takes none: {between}");
    report(&mut long)?;
    let after = site.fetch("fetch", PORT, "--connections 10 --upload 1000")?;
    ensure!(after["servers"]["s1"].as_u64() >= Some(4), "the limit stays for ever: {after}");
    site.check_counters()
}
