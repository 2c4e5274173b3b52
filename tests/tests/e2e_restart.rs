//! The data plane outlives the daemon, a bad file changes nothing, and teardown leaves nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::lab::{Arms, Medlb, Method, Process, Site, find, report};

const PORT: u16 = 7000;
const LABEL: &str = "Archive";

struct Running {
    medlb: Medlb,
    config: String,
    _servers: Vec<Process>,
    site: Site,
}

fn start(method: Method, arms: Arms) -> Result<Running> {
    let site = Site::build(method, arms, 2)?;
    let servers = site.serve(PORT)?;
    let config = site.config(&site.service(LABEL, "7000", &[]));
    let medlb = Medlb::start(&site, &config)?;
    medlb.wait_health(LABEL, &["up", "up"])?;
    Ok(Running { medlb, config, _servers: servers, site })
}

/// Bytes towards the real servers, over all services.
fn bytes_in(stats: &Value) -> u64 {
    find(stats, LABEL).and_then(|service| service["bytes_in"].as_u64()).unwrap_or(0)
}

fn survives_kill_9(method: Method, arms: Arms) -> Result<()> {
    let mut running = start(method, arms)?;
    let load = "--connections 8 --upload 13107200 --download 13107200 --seconds 3";
    let mut client = running.site.begin("fetch", PORT, load)?;
    std::thread::sleep(Duration::from_secs(1));
    let before = running.medlb.stats()?;
    ensure!(bytes_in(&before) > 1_000_000, "the transfer has not begun: {before:#}");
    running.medlb.crash()?;
    // New connections too, while no daemon runs.
    let report_without = running.site.fetch("fetch", PORT, "--connections 20 --upload 10000")?;
    ensure!(report_without["ok"] == 20, "{report_without}");
    ensure!(client.running(), "the transfer ended before the daemon was back: {}", client.log());
    running.medlb.launch()?;
    let all = report(&mut client)?;
    ensure!(all["ok"] == 8 && all["failed"] == 0, "{all}");
    running.site.check_counters()?;
    let after = running.medlb.stats()?;
    let total = find(&after, LABEL).and_then(|service| service["connections_total"].as_u64());
    ensure!(total == Some(28), "counters did not survive: {after:#}");
    ensure!(bytes_in(&after) > bytes_in(&before), "{after:#}");
    running.medlb.wait_health(LABEL, &["up", "up"])
}

#[test]
fn dr_kill_9_in_the_middle_of_a_transfer_loses_nothing() -> Result<()> {
    survives_kill_9(Method::Dr, Arms::One)
}

#[test]
fn nat_kill_9_in_the_middle_of_a_transfer_loses_nothing() -> Result<()> {
    survives_kill_9(Method::Nat, Arms::Two)
}

#[test]
fn snat_kill_9_in_the_middle_of_a_transfer_loses_nothing() -> Result<()> {
    survives_kill_9(Method::Snat, Arms::One)
}

#[test]
fn sigterm_leaves_the_data_plane_forwarding() -> Result<()> {
    let mut running = start(Method::Nat, Arms::Two)?;
    let mut client = running.site.begin("fetch", PORT, "--upload 10000000 --seconds 3")?;
    std::thread::sleep(Duration::from_millis(500));
    running.medlb.stop()?;
    running.site.fetch("fetch", PORT, "--connections 10 --upload 10000")?;
    report(&mut client)?;
    Ok(())
}

#[test]
fn a_bad_file_changes_nothing() -> Result<()> {
    let running = start(Method::Snat, Arms::One)?;
    let before = running.medlb.status()?;
    let bad = running.config.replace("forwarding_method", "forwarding_methd");
    let output = running.medlb.reload(&bad)?;
    ensure!(output.status.code() == Some(78), "exit code {:?}", output.status.code());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(words.contains("forwarding_method"), "no hint in: {words}");
    let after = running.medlb.status()?;
    ensure!(before["config_hash"] == after["config_hash"], "{after:#}");
    ensure!(before["services"] != Value::Null, "{before:#}");
    let states = |status: &Value| find(status, LABEL).map(|service| service["state"].clone());
    ensure!(states(&before) == states(&after), "{after:#}");
    let through = running.site.fetch("fetch", PORT, "--connections 10 --upload 10000")?;
    ensure!(through["ok"] == 10, "{through}");
    Ok(())
}

#[test]
fn a_reload_keeps_connections_and_counters_of_what_did_not_change() -> Result<()> {
    let running = start(Method::Nat, Arms::One)?;
    running.site.fetch("fetch", PORT, "--connections 6 --upload 10000")?;
    let mut client = running.site.begin("fetch", PORT, "--upload 10000000 --seconds 3")?;
    std::thread::sleep(Duration::from_millis(500));
    let more = running.site.service("Second", "7001", &["health_check: {type: none}"]);
    let output = running.medlb.reload(&format!("{}{more}", running.config))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stats = running.medlb.stats()?;
    let total = find(&stats, LABEL).and_then(|service| service["connections_total"].as_u64());
    ensure!(total == Some(7), "{stats:#}");
    ensure!(find(&stats, "Second").is_some(), "{stats:#}");
    running.medlb.wait_health(LABEL, &["up", "up"])?;
    report(&mut client)?;
    running.site.check_counters()
}

#[test]
fn teardown_takes_everything_away() -> Result<()> {
    let mut running = start(Method::Dr, Arms::One)?;
    let vip = running.site.vip.to_string();
    let addresses = |site: &Site| site.lb.ip("-o addr show dev eth0");
    ensure!(addresses(&running.site)?.contains(&vip), "the VIP is not on the interface");
    ensure!(running.site.lab.pins().exists(), "nothing is pinned");
    running.medlb.stop()?;
    running.medlb.teardown()?;
    ensure!(!addresses(&running.site)?.contains(&vip), "the VIP is still on the interface");
    ensure!(!running.site.lab.pins().exists(), "pins are left");
    let link = running.site.lb.ip("-d link show dev eth0")?;
    ensure!(!link.contains("xdp"), "a program is still attached: {link}");
    let again = running.medlb.teardown()?;
    ensure!(again.contains("nothing"), "a second teardown has nothing to do: {again}");
    Ok(())
}
