//! What the daemon costs, at the sizes of the budget: it must be a release build.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::{Value, json};

use super::report::Section;
use super::scenes::digits;
use super::statistics::Summary;
use super::table::Table;
use super::wire;
use crate::lab::{Arms, Medlb, Method, Process, Site, sibling, wait_for};

const FLOWS: u32 = 1_000_000;
/// How often the daemon sweeps.
const SWEEP: Duration = Duration::from_secs(10);
const SERVICES: u16 = 1000;
const SERVERS: u8 = 10;
/// Services whose servers are checked: a thousand checks.
const CHECKED: u16 = 100;
const FIRST_PORT: u16 = 2000;
const RELOADS: usize = 5;

/// One line of the table.
struct Cost {
    name: String,
    value: f64,
    unit: &'static str,
    budget: Option<f64>,
}

/// Measures everything.
///
/// # Errors
/// Not root, something is not built, or the daemon refuses.
pub fn run(quick: bool) -> Result<Section> {
    let mut costs = sweep(if quick { 1 } else { 3 })?;
    costs.extend(reload()?);
    costs.push(checks(Duration::from_secs(if quick { 10 } else { 30 }))?);
    let mut table = Table::new("the daemon", &["", "budget"]);
    let mut figures = Vec::new();
    for cost in &costs {
        let budget = cost.budget.map_or(String::new(), |budget| {
            let met = if cost.value <= budget { "met" } else { "missed" };
            format!("≤ {budget} {}: {met}", cost.unit)
        });
        table.row(&cost.name, vec![format!("{:.2} {}", cost.value, cost.unit), budget]);
        figures.push(json!({
            "name": cost.name, "value": cost.value, "unit": cost.unit, "budget": cost.budget,
        }));
    }
    let build = if cfg!(debug_assertions) { "an unoptimised build" } else { "a release build" };
    let note = format!(
        "The daemon itself, {build}, running: its CPU time as the kernel accounts it (per cent of one \
         core), and how long commands take."
    );
    let title = "The control path";
    Ok(Section { title, note, tables: vec![table], figures: figures.into() })
}

/// With a million established connections, which were opened by their handshakes.
fn sweep(sweeps: u32) -> Result<Vec<Cost>> {
    eprintln!("bench: control, {} connections", digits(FLOWS));
    let rig = wire::filled(FLOWS)?;
    let medlb = rig.medlb.as_ref().context("the rig has no medlb")?;
    let active = |stats: &Value| stats["services"][0]["active_connections"].as_u64();
    ensure!(active(&medlb.stats()?) == Some(FLOWS.into()), "not all connections are there");
    let share = share(medlb, SWEEP * sweeps)?;
    let each = share / 100.0 * SWEEP.as_secs_f64() * 1e3;
    let flows = digits(FLOWS);
    let name = format!("{flows} connections: sweeps and all else");
    Ok(vec![
        Cost { name, value: share, unit: "% of a core", budget: Some(5.0) },
        Cost { name: "a sweep of them".into(), value: each, unit: "ms", budget: None },
    ])
}

/// Per cent of a core that the daemon takes.
fn share(medlb: &Medlb, length: Duration) -> Result<f64> {
    let (before, start) = (spent(medlb.pid()?)?, Instant::now());
    std::thread::sleep(length); // this is the measurement, nothing is waited for
    let spent = spent(medlb.pid()?)? - before;
    Ok(spent / start.elapsed().as_secs_f64() * 100.0)
}

/// Seconds of CPU time of a process, with its threads that have ended.
fn spent(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(')').context("an odd stat")?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<f64>);
    let mut next = || fields.next().context("a short stat")?.context("an odd stat");
    let ticks = next()? + next()?;
    let second = sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
    Ok(ticks / second as f64)
}

/// So many services, each a port of the VIP's, over the same ten addresses.
fn config(site: &Site, services: u16, weight: u16, check: &str) -> String {
    let mut text = String::new();
    for port in FIRST_PORT..FIRST_PORT + services {
        let _ = write!(
            text,
            "  - label: S{port}\n    address: {}\n    ports: {port}\n    forwarding_method: nat\n    \
             health_check: {check}\n    real_servers:\n",
            site.vip
        );
        for host in 0..SERVERS {
            let _ = writeln!(
                text,
                "      - {{label: S{port}-{host}, address: 10.77.2.{}, weight: {weight}}}",
                21 + host
            );
        }
    }
    site.config(&text)
}

/// A thousand services of ten servers each.
fn reload() -> Result<Vec<Cost>> {
    eprintln!("bench: control, {SERVICES} services");
    let site = Site::build(Method::Nat, Arms::Two, 1)?;
    let start = Instant::now();
    let medlb = Medlb::start(&site, &config(&site, SERVICES, 100, "none"))?;
    let started = start.elapsed().as_secs_f64();
    let (mut all, mut none) = (Vec::new(), Vec::new());
    for round in 0..RELOADS as u16 {
        let text = config(&site, SERVICES, 50 + round, "none");
        for times in [&mut all, &mut none] {
            let start = Instant::now();
            let output = medlb.reload(&text)?;
            times.push(start.elapsed().as_secs_f64());
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let name = |what: &str| format!("{SERVICES} services × {SERVERS} servers: {what}");
    let cost = |what: &str, value: f64, budget: Option<f64>| Cost {
        name: name(what),
        value,
        unit: "s",
        budget,
    };
    Ok(vec![
        cost("start, until it answers", started, None),
        cost("reload, every weight changed", Summary::of(&all).median, Some(1.0)),
        cost("reload, nothing changed", Summary::of(&none).median, Some(1.0)),
    ])
}

/// A thousand connections to servers every five seconds.
fn checks(length: Duration) -> Result<Cost> {
    let number = u32::from(CHECKED) * u32::from(SERVERS);
    eprintln!("bench: control, {number} checks");
    let site = Site::build(Method::Nat, Arms::Two, 1)?;
    for host in 1..SERVERS {
        site.servers[0].ip(&format!("addr add 10.77.2.{}/24 dev eth0", 21 + host))?;
    }
    let _server = listen(&site)?;
    let check = "{type: connect, interval: 5s, timeout: 2s}";
    let medlb = Medlb::start(&site, &config(&site, CHECKED, 100, check))?;
    wait_for("all servers up", Duration::from_secs(60), || {
        let status = medlb.status()?;
        let services = status["services"].as_array().context("no services")?;
        let servers = services.iter().filter_map(|s| s["real_servers"].as_array()).flatten();
        let up = servers.filter(|server| server["health"] == "up").count();
        Ok((up == number as usize).then_some(()))
    })?;
    Ok(Cost {
        name: format!("{} connect checks every 5 s", digits(number)),
        value: share(&medlb, length)?,
        unit: "% of a core",
        budget: Some(10.0),
    })
}

/// A server on every port that is checked.
fn listen(site: &Site) -> Result<Process> {
    let mut command = vec!["serve".to_owned(), "--threads".into(), "1".into()];
    for port in FIRST_PORT..FIRST_PORT + CHECKED {
        command.extend(["--listen".to_owned(), format!("0.0.0.0:{port}")]);
    }
    let words: Vec<_> = command.iter().map(String::as_str).collect();
    let mut server = site.servers[0].spawn("load", sibling("load")?, &words)?;
    wait_for("the server", Duration::from_secs(10), || {
        ensure!(server.running(), "it ended: {}", server.log());
        Ok(server.log().contains("listening").then_some(()))
    })?;
    Ok(server)
}
