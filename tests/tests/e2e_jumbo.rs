//! Jumbo frames: with an MTU of 9000 a frame does not lie in one piece, and every byte arrives all
//! the same.

use anyhow::{Result, ensure};
use tests::lab::{Arms, Medlb, Method, Site, find};

const PORT: u16 = 7000;
const LABEL: &str = "Archive";
const MTU: u32 = 9000;
/// Each direction of the bulk transfers.
const BULK: u64 = 52_428_800;

#[test]
fn dr_carries_jumbo_frames() -> Result<()> {
    carries_jumbo_frames(Method::Dr, Arms::One)
}

#[test]
fn nat_carries_jumbo_frames_in_both_directions() -> Result<()> {
    carries_jumbo_frames(Method::Nat, Arms::Two)
}

#[test]
fn snat_carries_jumbo_frames_in_both_directions() -> Result<()> {
    carries_jumbo_frames(Method::Snat, Arms::One)
}

fn carries_jumbo_frames(method: Method, arms: Arms) -> Result<()> {
    let site = Site::build(method, arms, 2)?;
    site.set_mtu(MTU)?;
    let _servers = site.serve(PORT)?;
    let _udp = site.serve_udp(PORT)?;
    let config = site.config(&site.service(LABEL, "7000", &["protocol: tcp+udp"]));
    let mut medlb = Medlb::start(&site, &config)?;
    medlb.wait_state(LABEL, "green")?;
    let status = medlb.status()?;
    ensure!(status["interfaces"][0]["xdp_mode"] == "native", "{:#}", status["interfaces"]);

    site.fetch("fetch", PORT, &format!("--upload {BULK} --download {BULK}"))?;
    site.fetch("fetch", PORT, "--connections 20 --upload 1000000 --download 1000000")?;
    // Datagrams that fill a frame: 8972 bytes come back with the server's name in front.
    site.fetch("udp-fetch", PORT, "--connections 10 --upload 20 --download 8900")?;
    site.check_counters()?;
    really_jumbo(&medlb, method)?;

    medlb.stop()?;
    medlb.teardown()?;
    Ok(())
}

/// The frames were large: on average far more than a frame of 1500 bytes holds.
fn really_jumbo(medlb: &Medlb, method: Method) -> Result<()> {
    let stats = medlb.stats()?;
    let service = find(&stats, LABEL).expect("the service is in the statistics");
    let number = |name: &str| service[name].as_u64().unwrap_or(0);
    if method != Method::Dr {
        let (bytes, packets) = (number("bytes_out"), number("packets_out"));
        ensure!(bytes > BULK && bytes / packets > 1500, "{service:#}");
    }
    let (bytes, packets) = (number("bytes_in"), number("packets_in"));
    ensure!(bytes > BULK && bytes / packets > 1500, "{service:#}");
    for verdict in ["malformed", "adjust_failed", "redirect_failed", "too_big"] {
        let count = stats["verdicts"][verdict].as_u64().unwrap_or(0);
        ensure!(count == 0, "{verdict}: {count}");
    }
    Ok(())
}
