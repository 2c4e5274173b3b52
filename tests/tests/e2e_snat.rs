//! SNAT beside what the host itself has open towards the same server: checks, its own connections,
//! and services with one source address or several.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::lab::{Arms, Medlb, Method, Netns, Process, Site, real, report, sibling};

const PORT: u16 = 7000;
/// Connections of each service, and of the host itself.
const EACH: u64 = 150;
/// Another address of medlb's towards the servers, and other VIPs.
const SECOND_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 3);
const VIPS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 77, 1, 100), Ipv4Addr::new(10, 77, 1, 101), Ipv4Addr::new(10, 77, 1, 102)];
const LABELS: [&str; 3] = ["Own", "Apart", "Default"];

/// Three services towards one server and port: from medlb's own address, from another one, and from
/// what medlb takes when nothing is said (its own again).
fn services(site: &Site) -> String {
    let check = "health_check: {type: connect, via: rip, interval: 100ms, timeout: 10s, fall: 1}";
    let text = |number: usize| {
        let service = site.service(LABELS[number], "7000", &[check]);
        service.replace(&site.vip.to_string(), &VIPS[number].to_string())
    };
    let source = format!("source_address: \"{}\"", site.source_address());
    let other = format!("source_address: \"{SECOND_SOURCE}\"");
    let none = text(2).replace(&format!("    {source}\n"), "");
    [text(0), text(1).replace(&source, &other), none].concat()
}

/// The addresses and ports that the server's connections on this port come from.
fn peers(server: &Netns) -> Result<BTreeSet<SocketAddr>> {
    let text = server.run("ss", &["-Htn", "state", "established", &format!("sport = :{PORT}")])?;
    let ends = text.lines().filter_map(|line| line.split_whitespace().nth(3));
    ends.map(|end| Ok(end.replace("[::ffff:", "").replace(']', "").parse()?)).collect()
}

/// No server of any service has failed a check.
fn all_up(medlb: &Medlb) -> Result<()> {
    let status = medlb.status()?;
    for label in LABELS {
        let server = real(&status, label, &format!("{label}-1"))?;
        ensure!(server["health"] == "up", "{server:#}");
    }
    Ok(())
}

#[test]
fn checks_own_connections_and_services_that_share_a_server_do_not_meet() -> Result<()> {
    let site = Site::build(Method::Snat, Arms::Two, 1)?;
    let _servers = site.serve(PORT)?;
    let mut medlb = Medlb::start(&site, &site.config(&services(&site)))?;
    for label in LABELS {
        medlb.wait_health(label, &["up"])?;
    }
    // Nobody had it, and replies come only to an address that answers ARP.
    ensure!(has(&site, SECOND_SOURCE)?, "{}", site.lb.ip("-o addr show")?);

    let load = format!("--connections {EACH} --upload 100000 --download 100000 --seconds 4");
    let mut clients: Vec<Process> = VIPS
        .iter()
        .map(|&vip| site.begin_to("fetch", SocketAddr::new(vip.into(), PORT), &load))
        .collect::<Result<_>>()?;
    let to = SocketAddr::new(site.addresses[0].into(), PORT).to_string();
    let arguments: Vec<_> =
        ["fetch", "--to", &to].into_iter().chain(load.split_whitespace()).collect();
    clients.push(site.lb.spawn("own", sibling("traffic")?, &arguments)?);

    let mut seen = BTreeSet::new();
    while clients.iter_mut().any(Process::running) {
        all_up(&medlb)?;
        seen.extend(peers(&site.servers[0])?);
        std::thread::sleep(Duration::from_millis(100));
    }
    for client in &mut clients {
        let report = report(client)?;
        ensure!(report["servers"]["s1"] == EACH, "{report}");
    }
    all_up(&medlb)?;
    ensure!(!medlb.log().contains("to=down"), "{}", medlb.log());

    // What the server saw: the services' connections from their addresses and the range, the host's
    // own and the checks from other ports.
    let of = |address: Ipv4Addr, range: bool| {
        let mine = seen.iter().filter(|peer| peer.ip() == address);
        mine.filter(|peer| (peer.port() >= 61000) == range).count() as u64
    };
    let (own, second) = (site.source_address(), SECOND_SOURCE);
    ensure!(of(own, true) == 2 * EACH, "{} from medlb's own address", of(own, true));
    ensure!(of(second, true) == EACH, "{} from the other one", of(second, true));
    ensure!(of(second, false) == 0, "the host used the address of a service");
    ensure!(of(own, false) >= EACH, "{} of the host's own", of(own, false));
    let checks = site.servers[0].snmp("Tcp", "PassiveOpens")?.saturating_sub(4 * EACH);
    ensure!(checks >= 30, "only {checks} checks meanwhile");
    site.check_counters()?;
    medlb.stop()?;
    medlb.teardown()?;
    ensure!(!has(&site, SECOND_SOURCE)?, "it goes with medlb");
    ensure!(has(&site, site.source_address())?, "what was the host's own stays");
    Ok(())
}

/// Whether medlb's machine has this address.
fn has(site: &Site, address: Ipv4Addr) -> Result<bool> {
    Ok(site.lb.ip("-o addr show")?.contains(&format!(" {address}/")))
}
