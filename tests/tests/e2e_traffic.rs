//! Every forwarding method, with one arm and with two: what arrives is what was sent, and every
//! server gets its share.

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::lab::{Arms, Medlb, Method, Site, find};

const PORT: u16 = 7000;
const LABEL: &str = "Archive";
/// Each direction of the bulk transfers.
const BULK: u64 = 104_857_600;
const CONNECTIONS: u64 = 500;

#[test]
fn dr_one_arm_carries_every_byte() -> Result<()> {
    carries_every_byte(Method::Dr, Arms::One)
}

#[test]
fn dr_two_arm_carries_every_byte() -> Result<()> {
    carries_every_byte(Method::Dr, Arms::Two)
}

#[test]
fn nat_one_arm_carries_every_byte() -> Result<()> {
    carries_every_byte(Method::Nat, Arms::One)
}

#[test]
fn nat_two_arm_carries_every_byte() -> Result<()> {
    carries_every_byte(Method::Nat, Arms::Two)
}

#[test]
fn snat_one_arm_carries_every_byte() -> Result<()> {
    carries_every_byte(Method::Snat, Arms::One)
}

#[test]
fn snat_two_arm_carries_every_byte() -> Result<()> {
    carries_every_byte(Method::Snat, Arms::Two)
}

fn carries_every_byte(method: Method, arms: Arms) -> Result<()> {
    let site = Site::build(method, arms, 2)?;
    let _servers = site.serve(PORT)?;
    let _udp = site.serve_udp(PORT)?;
    let config = site.config(&site.service(LABEL, "7000", &["protocol: tcp+udp"]));
    let mut medlb = Medlb::start(&site, &config)?;
    medlb.wait_health(LABEL, &["up", "up"])?;

    bulk(&site)?;
    crowd(&site)?;
    datagrams(&site)?;
    site.check_counters()?;
    counted(&medlb, method)?;

    medlb.stop()?;
    medlb.teardown()?;
    Ok(())
}

/// One stream up, one down, and four of both at once.
fn bulk(site: &Site) -> Result<()> {
    site.fetch("fetch", PORT, &format!("--upload {BULK}"))?;
    site.fetch("fetch", PORT, &format!("--download {BULK}"))?;
    let quarter = BULK / 4;
    let report = format!("--connections 4 --upload {quarter} --download {quarter}");
    let report = site.fetch("fetch", PORT, &report)?;
    both_served(&report)
}

/// All connections are open at the same time before the first byte is sent.
fn crowd(site: &Site) -> Result<()> {
    let arguments = format!("--connections {CONNECTIONS} --upload 20000 --download 20000");
    let report = site.fetch("fetch", PORT, &arguments)?;
    ensure!(report["ok"] == CONNECTIONS, "{report}");
    both_served(&report)
}

fn datagrams(site: &Site) -> Result<()> {
    let report = site.fetch("udp-fetch", PORT, "--connections 50 --upload 20 --download 1000")?;
    ensure!(report["ok"] == 50, "{report}");
    both_served(&report)
}

fn both_served(report: &Value) -> Result<()> {
    let share = |name: &str| report["servers"][name].as_u64().unwrap_or(0);
    let (one, two) = (share("s1"), share("s2"));
    ensure!(one.abs_diff(two) <= (one + two) / 4, "equal weights, unequal shares: {report}");
    Ok(())
}

/// The statistics agree with what was sent.
fn counted(medlb: &Medlb, method: Method) -> Result<()> {
    let stats = medlb.stats()?;
    let service = find(&stats, LABEL).expect("the service is in the statistics");
    let number = |name: &str| service[name].as_u64().unwrap_or(0);
    // TCP: one up, one down, four, the crowd; UDP: 50 sockets; and health checks do not count.
    let due = 1 + 1 + 4 + CONNECTIONS + 50;
    ensure!(number("connections_total") == due, "{due} connections expected: {service:#}");
    ensure!(number("bytes_in") > 2 * BULK, "{service:#}");
    if method == Method::Dr {
        ensure!(number("bytes_out") == 0, "DR replies do not pass medlb: {service:#}");
    } else {
        ensure!(number("bytes_out") > 2 * BULK, "{service:#}");
    }
    Ok(())
}
