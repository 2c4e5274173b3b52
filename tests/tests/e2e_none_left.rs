//! No real server can take a connection: the fallback server does, or the client is told at once.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::{Arms, Medlb, Method, Site, find, report};

const PORT: u16 = 7000;
const UDP: u16 = 7001;
/// The errors must come from medlb's answers, not from anybody's time-out.
const AT_ONCE: Duration = Duration::from_secs(5);

/// What a client sees that connects (sends a datagram) to this address and waits for an answer:
/// the error's name and how long it took.
fn refused(site: &Site, kind: &str, to: SocketAddr) -> Result<(String, Duration)> {
    let script = "import socket, sys, time\n\
        kind = socket.SOCK_STREAM if sys.argv[1] == 'tcp' else socket.SOCK_DGRAM\n\
        family = socket.AF_INET6 if ':' in sys.argv[2] else socket.AF_INET\n\
        s = socket.socket(family, kind)\n\
        s.settimeout(10)\n\
        began = time.monotonic()\n\
        try:\n\
        \x20   s.connect((sys.argv[2], int(sys.argv[3])))\n\
        \x20   s.send(b'anybody there?')\n\
        \x20   s.recv(1)\n\
        \x20   name = 'answered'\n\
        except Exception as e:\n\
        \x20   name = type(e).__name__\n\
        print(name, time.monotonic() - began)";
    let (address, port) = (to.ip().to_string(), to.port().to_string());
    let text = site.client.run("/usr/bin/python3", &["-c", script, kind, &address, &port])?;
    let (name, took) = text.trim().split_once(' ').context("no report")?;
    Ok((name.to_owned(), Duration::from_secs_f64(took.parse()?)))
}

fn is_refused_at_once(site: &Site, kind: &str, to: SocketAddr) -> Result<()> {
    let (error, took) = refused(site, kind, to)?;
    ensure!(error == "ConnectionRefusedError", "{kind} to {to}: {error} after {took:?}");
    ensure!(took < AT_ONCE, "{kind} to {to}: refused only after {took:?}");
    Ok(())
}

fn drops(stats: &Value, label: &str) -> u64 {
    let service = find(stats, label).map_or(&Value::Null, |service| &service["drops"]);
    service["no_usable_server"].as_u64().unwrap_or(0)
}

fn refuses_at_once(method: Method, arms: Arms) -> Result<()> {
    let site = Site::build(method, arms, 1)?;
    // Nobody listens; the UDP services are checked at a TCP port where nobody does either.
    let udp = ["protocol: udp", "health_check: {type: connect, port: 7000}"];
    let services = site.service("Tcp4", "7000", &[])
        + &site.service6("Tcp6", "7000", &[])
        + &site.service("Udp4", "7001", &udp)
        + &site.service6("Udp6", "7001", &udp);
    let medlb = Medlb::start(&site, &site.config(&services))?;
    let all = ["Tcp4", "Tcp6", "Udp4", "Udp6"];
    for label in all {
        medlb.wait_state(label, "red")?;
    }
    let before = medlb.stats()?;
    for v6 in [false, true] {
        is_refused_at_once(&site, "tcp", SocketAddr::new(site.vip_of(v6), PORT))?;
        is_refused_at_once(&site, "udp", SocketAddr::new(site.vip_of(v6), UDP))?;
    }
    let stats = medlb.stats()?;
    for label in all {
        ensure!(drops(&stats, label) > drops(&before, label), "{label}: {stats:#}");
    }
    site.check_counters()
}

#[test]
fn dr_clients_are_refused_at_once() -> Result<()> {
    refuses_at_once(Method::Dr, Arms::One)
}

#[test]
fn nat_clients_are_refused_at_once() -> Result<()> {
    refuses_at_once(Method::Nat, Arms::Two)
}

#[test]
fn snat_clients_are_refused_at_once() -> Result<()> {
    refuses_at_once(Method::Snat, Arms::Two)
}

/// The second server is not in the pool but stands by; it serves on `port`.
fn falls_back(method: Method, arms: Arms, port: u16) -> Result<()> {
    let site = Site::build(method, arms, 2)?;
    let mut first = site.serve_one(0, "serve", PORT)?;
    let _fallback = site.serve_one(1, "serve", port)?;
    let fallback = format!("fallback_server: {{address: {}, port: {port}}}", site.addresses[1]);
    let only = [(site.addresses[0].into(), "")];
    let service = site.service_of("Archive", "7000", &[&fallback], &only);
    let medlb = Medlb::start(&site, &site.config(&service))?;
    medlb.wait_state("Archive", "green")?;
    let who = || -> Result<String> {
        let report = site.fetch("fetch", PORT, "--connections 10 --upload 1000 --download 1000")?;
        Ok(report["servers"].to_string())
    };
    ensure!(who()? == r#"{"s1":10}"#, "the fallback server is not needed: {}", who()?);
    let using = || -> Result<bool> {
        let status = medlb.status()?;
        Ok(find(&status, "Archive").is_some_and(|service| service["using_fallback"] == true))
    };
    ensure!(!using()?, "using_fallback too early");
    first.kill()?;
    medlb.wait_state("Archive", "red")?;
    ensure!(using()?, "using_fallback is not shown");
    ensure!(who()? == r#"{"s2":10}"#, "the fallback server does not take over: {}", who()?);
    let mut long = site.begin("fetch", PORT, "--upload 1000000 --seconds 5")?;
    std::thread::sleep(Duration::from_millis(500));
    let _first = site.serve_one(0, "serve", PORT)?;
    medlb.wait_state("Archive", "green")?;
    ensure!(!using()?, "using_fallback too long");
    ensure!(who()? == r#"{"s1":10}"#, "{}", who()?);
    // What the fallback server has begun it ends.
    ensure!(report(&mut long)?["servers"]["s2"] == 1, "cut off");
    site.check_counters()
}

#[test]
fn dr_the_fallback_server_takes_over() -> Result<()> {
    falls_back(Method::Dr, Arms::One, 7000)
}

#[test]
fn nat_the_fallback_server_takes_over_on_its_own_port() -> Result<()> {
    falls_back(Method::Nat, Arms::Two, 7070)
}

#[test]
fn snat_the_fallback_server_takes_over_on_its_own_port() -> Result<()> {
    falls_back(Method::Snat, Arms::One, 7070)
}
