//! Path MTU discovery works through medlb, whichever side the smaller link is on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::lab::{Arms, Medlb, Method, Netns, Site, report};

const PORT: u16 = 7000;
const LABEL: &str = "Archive";
/// Of the small link.
const MTU: u32 = 1300;
const BULK: u64 = 5_000_000;
/// What a transfer takes when all is well is far less.
const STALL: Duration = Duration::from_secs(3);

/// Starts medlb, and transfers in `direction` (`upload`, `download`) by both families: a transfer
/// stalls while the router's errors are lost, and goes on when they are not.
fn discovers(site: &Site, router: &Netns, direction: &str) -> Result<()> {
    let _servers = site.serve(PORT)?;
    let services = site.service("Four", "7000", &[]) + &site.service6(LABEL, "7000", &[]);
    let medlb = Medlb::start(site, &site.config(&services))?;
    medlb.wait_state("Four", "green")?;
    medlb.wait_state(LABEL, "green")?;
    router.run("nft", &["add table inet lost"])?;
    router.run("nft", &["add chain inet lost out { type filter hook output priority 0; }"])?;
    for error in ["icmp type destination-unreachable", "icmpv6 type packet-too-big"] {
        router.run("nft", &[&format!("add rule inet lost out {error} counter drop")])?;
    }
    let mut clients = Vec::new();
    for v6 in [false, true] {
        let to = SocketAddr::new(site.vip_of(v6), PORT);
        clients.push(site.begin_to("fetch", to, &format!("--{direction} {BULK}"))?);
    }
    std::thread::sleep(STALL);
    let lost = router.run("nft", &["list table inet lost"])?;
    ensure!(lost.matches("counter packets 0 ").count() == 0, "no error was sent: {lost}");
    for client in &mut clients {
        ensure!(client.running(), "it did not stall: {}", client.log());
    }
    router.run("nft", &["delete table inet lost"])?;
    for client in &mut clients {
        report(client)?;
    }
    // And from the start, as nobody remembers: a new client, its errors let through.
    for netns in site.servers.iter().chain([&site.client]) {
        netns.ip("route flush cache")?;
        netns.ip("-6 route flush cache")?;
    }
    site.fetch("fetch", PORT, &format!("--{direction} {BULK}"))?;
    site.fetch6("fetch", PORT, &format!("--{direction} {BULK}"))?;
    site.check_counters()
}

fn in_front(method: Method, arms: Arms) -> Result<()> {
    let mut site = Site::build(method, arms, 1)?;
    let router = site.move_client(MTU)?;
    discovers(&site, &router, "download")
}

fn behind(method: Method) -> Result<()> {
    let mut site = Site::build(method, Arms::Two, 0)?;
    let router = site.move_server("br1", MTU)?;
    discovers(&site, &router, "upload")
}

#[test]
fn dr_a_server_learns_of_a_small_link_in_front() -> Result<()> {
    in_front(Method::Dr, Arms::One)
}

#[test]
fn nat_a_server_learns_of_a_small_link_in_front() -> Result<()> {
    in_front(Method::Nat, Arms::Two)
}

#[test]
fn snat_a_server_learns_of_a_small_link_in_front() -> Result<()> {
    in_front(Method::Snat, Arms::One)
}

#[test]
fn nat_a_client_learns_of_a_small_link_behind() -> Result<()> {
    behind(Method::Nat)
}

#[test]
fn snat_a_client_learns_of_a_small_link_behind() -> Result<()> {
    behind(Method::Snat)
}
