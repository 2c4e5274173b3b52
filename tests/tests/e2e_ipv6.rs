//! IPv6 from end to end: VIP addresses, neighbours, checks and every forwarding method.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::lab::{Arms, Medlb, Method, Site, find, sibling, wait_for};

const PORT: u16 = 7000;
const LABEL: &str = "Archive";
const BULK: u64 = 20_000_000;

fn carries_every_byte(method: Method, arms: Arms) -> Result<()> {
    let site = Site::build(method, arms, 2)?;
    let mut servers = site.serve(PORT)?;
    let _udp = site.serve_udp(PORT)?;
    let six = site.service6(LABEL, "7000", &["protocol: tcp+udp"]);
    let four = site.service("Four", "7000", &["protocol: tcp+udp"]);
    let mut medlb = Medlb::start(&site, &site.config(&(six + &four)))?;
    medlb.wait_state(LABEL, "green")?;
    medlb.wait_state("Four", "green")?;
    let vip = site.vip6.to_string();
    let addresses = || site.lb.ip("-6 -o addr show dev eth0");
    ensure!(addresses()?.contains(&format!("{vip}/128")), "no VIP: {}", addresses()?);

    let load = format!("--connections 4 --upload {BULK} --download {BULK}");
    site.fetch6("fetch", PORT, &load)?;
    let report = site.fetch6("fetch", PORT, "--connections 200 --upload 20000 --download 20000")?;
    ensure!(report["ok"] == 200, "{report}");
    let share = report["servers"]["s1"].as_u64().unwrap_or(0);
    ensure!(share.abs_diff(100) <= 10, "unequal shares: {report}");
    // Both families at once do not disturb each other.
    site.fetch("fetch", PORT, "--connections 20 --upload 20000 --download 20000")?;
    let report = site.fetch6("udp-fetch", PORT, "--connections 40 --upload 5 --download 1000")?;
    ensure!(report["ok"] == 40, "{report}");
    site.check_counters()?;

    let stats = medlb.stats()?;
    let service = find(&stats, LABEL).expect("the service");
    ensure!(service["connections_total"] == 4 + 200 + 40, "{service:#}");

    servers[0].kill()?;
    medlb.wait_state(LABEL, "yellow")?;
    let report = site.fetch6("fetch", PORT, "--connections 10 --upload 1000")?;
    ensure!(report["servers"]["s2"] == 10, "a dead server gets connections: {report}");

    medlb.stop()?;
    medlb.teardown()?;
    ensure!(!addresses()?.contains(&vip), "the VIP is still there: {}", addresses()?);
    Ok(())
}

#[test]
fn ipv6_dr_carries_every_byte() -> Result<()> {
    carries_every_byte(Method::Dr, Arms::One)
}

#[test]
fn ipv6_dr_two_arm_carries_every_byte() -> Result<()> {
    carries_every_byte(Method::Dr, Arms::Two)
}

#[test]
fn ipv6_nat_carries_every_byte() -> Result<()> {
    carries_every_byte(Method::Nat, Arms::Two)
}

#[test]
fn ipv6_snat_carries_every_byte() -> Result<()> {
    carries_every_byte(Method::Snat, Arms::One)
}

/// The VIP moves to another machine's hardware address: neighbours hear of it at once.
#[test]
fn the_vip_is_announced_to_neighbours_that_know_another_address() -> Result<()> {
    let site = Site::build(Method::Snat, Arms::One, 1)?;
    let _servers = site.serve(PORT)?;
    for vip in [site.vip_of(false), site.vip_of(true)] {
        let stale = format!("neigh replace {vip} lladdr 02:00:00:00:00:99 dev eth0 nud stale");
        site.client.ip(&stale)?;
    }
    let services = site.service("Four", "7000", &[]) + &site.service6(LABEL, "7000", &[]);
    let medlb = Medlb::start(&site, &site.config(&services))?;
    medlb.wait_state(LABEL, "green")?;
    let mac = site.lb.mac("eth0")?;
    wait_for("the neighbour entries to change", Duration::from_secs(5), || {
        let all = site.client.ip("neigh show")? + &site.client.ip("-6 neigh show")?;
        let knows = |vip: std::net::IpAddr| {
            let start = format!("{vip} ");
            all.lines().any(|line| line.starts_with(&start) && line.contains(&mac))
        };
        ensure!(knows(site.vip_of(false)) && knows(site.vip_of(true)), "{all}");
        Ok(Some(()))
    })
}

#[test]
fn ipv6_checks_go_through_the_vip_and_ping_answers() -> Result<()> {
    let site = Site::build(Method::Dr, Arms::One, 2)?;
    let _servers = site.serve(PORT)?;
    let services = site.service6(LABEL, "7000", &[])
        + &site.service6("Ping", "7001", &["health_check: {type: ping}"])
        + &site.service6("Rip", "7002", &["health_check: {type: ping, via: rip}"]);
    let medlb = Medlb::start(&site, &site.config(&services))?;
    for label in [LABEL, "Ping", "Rip"] {
        medlb.wait_state(label, "green")?;
    }
    let checked = medlb.ask(&["check-now", LABEL, "Archive-1"])?;
    ensure!(checked.contains("pass"), "{checked}");
    let vip = site.vip6.to_string();
    site.client.run(sibling("medlb")?, &["probe", "ping", &vip])?;

    site.servers[1].ip(&format!("addr del {vip}/128 dev lo"))?;
    for label in [LABEL, "Ping"] {
        medlb.wait_state(label, "yellow")?;
        let status = medlb.status()?;
        let server = tests::lab::real(&status, label, &format!("{label}-2"))?;
        let detail = server["last_check"]["detail"].as_str().unwrap_or_default();
        ensure!(detail.contains(&format!("is the VIP {vip} bound")), "{label}: {detail}");
    }
    ensure!(find(&medlb.status()?, "Rip").is_some_and(|rip| rip["state"] == "green"), "via: rip");
    Ok(())
}
