//! Datagrams of 8 KB, which travel as fragments, arrive whole through every forwarding method.

use anyhow::{Result, ensure};
use tests::lab::{Arms, Medlb, Method, Site, find};

const PORT: u16 = 7000;

fn whole(method: Method, arms: Arms) -> Result<()> {
    let site = Site::build(method, arms, 2)?;
    let _servers = site.serve_udp(PORT)?;
    let more = ["protocol: udp", "health_check: {type: ping}"];
    // Two servers that answer one client from one address choose the same IPv4 identification once in
    // a while, and the client cannot put such datagrams together (RFC 6864 §5.2): one server for it.
    let four = [&more[..], &["persistence: {timeout: 1h}"]].concat();
    let services = site.service("Four", "7000", &four) + &site.service6("Six", "7000", &more);
    let medlb = Medlb::start(&site, &site.config(&services))?;
    medlb.wait_state("Four", "green")?;
    medlb.wait_state("Six", "green")?;
    // One socket, then many at once: their fragments mix.
    for load in ["--upload 20 --download 8000", "--connections 30 --upload 40 --download 8000"] {
        for report in [site.fetch("udp-fetch", PORT, load)?, site.fetch6("udp-fetch", PORT, load)?]
        {
            ensure!(report["failed"] == 0, "{report}");
        }
    }
    // The largest that there is, in 45 fragments.
    site.fetch("udp-fetch", PORT, "--upload 3 --download 65000")?;
    site.fetch6("udp-fetch", PORT, "--upload 3 --download 65000")?;
    let stats = medlb.stats()?;
    for label in ["Four", "Six"] {
        let service = find(&stats, label).expect("the service");
        // 20 + 1,200 datagrams in 6 fragments each.
        ensure!(service["packets_in"].as_u64() >= Some(1220 * 6), "{service:#}");
        let back = service["packets_out"].as_u64();
        ensure!(method == Method::Dr || back >= Some(1220 * 6), "{service:#}");
    }
    ensure!(stats["verdicts"]["fragment_unmatched"].as_u64().unwrap_or(0) == 0, "{stats:#}");
    site.check_counters()
}

#[test]
fn dr_datagrams_in_fragments_arrive_whole() -> Result<()> {
    whole(Method::Dr, Arms::One)
}

#[test]
fn nat_datagrams_in_fragments_arrive_whole() -> Result<()> {
    whole(Method::Nat, Arms::Two)
}

#[test]
fn snat_datagrams_in_fragments_arrive_whole() -> Result<()> {
    whole(Method::Snat, Arms::One)
}
