//! One arm and medlb as the gateway: the kernel's ICMP redirects lead servers past medlb.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::{Arms, Medlb, Method, Site, sibling, wait_for};

const PORT: u16 = 7000;
const ASKED: u16 = 7001;
const LABEL: &str = "Archive";

/// What `doctor` says of redirects.
fn redirects(medlb: &Medlb) -> Result<Option<Value>> {
    let output = medlb.output(&["doctor", "--json"])?; // warnings are no success
    let findings: Value = serde_json::from_slice(&output.stdout)?;
    let list = findings["findings"].as_array().or(findings.as_array()).context("no findings")?;
    let about = |finding: &&Value| finding.to_string().contains("send_redirects");
    Ok(list.iter().find(about).cloned())
}

/// Whether the server, having itself spoken to a client, now goes past medlb. By UDP: on virtual
/// links a redirect is there while TCP still holds its socket, and is not heeded.
fn misled(site: &Site) -> Result<bool> {
    let (server, client) = (&site.servers[0], "10.77.1.10");
    let to = format!("{client}:{ASKED}");
    let arguments = ["udp-fetch", "--to", &to, "--upload", "5", "--download", "100"];
    server.run(sibling("traffic")?, &arguments)?;
    Ok(!server.ip(&format!("route get {client}"))?.contains("via 10.77.2.2 "))
}

#[test]
fn nat_with_one_arm_doctor_warns_of_redirects_that_lead_servers_past_medlb() -> Result<()> {
    let site = Site::build(Method::Nat, Arms::One, 1)?;
    let _servers = site.serve(PORT)?;
    site.client.ip("route add 10.77.2.0/24 via 10.77.1.2")?;
    let listen = format!("0.0.0.0:{ASKED}");
    let arguments = ["udp-serve", "--listen", &listen, "--name", "client"];
    let listener = site.client.spawn("asked", sibling("traffic")?, &arguments)?;
    wait_for("the client to listen", Duration::from_secs(10), || {
        Ok(listener.log().contains("listening").then_some(()))
    })?;
    for scope in ["all", "eth0"] {
        site.lb.sysctl(&format!("ipv4/conf/{scope}/send_redirects"), 0)?;
    }
    let medlb = Medlb::start(&site, &site.config(&site.service(LABEL, "7000", &[])))?;
    medlb.wait_health(LABEL, &["up"])?;
    ensure!(redirects(&medlb)?.is_none(), "a warning of nothing");
    ensure!(!misled(&site)?, "the server was misled by something else");
    site.fetch("fetch", PORT, "--connections 5 --upload 10000 --download 10000")?;

    site.lb.sysctl("ipv4/conf/eth0/send_redirects", 1)?;
    let finding = redirects(&medlb)?.context("doctor says nothing")?;
    ensure!(finding["level"] == "WARN", "{finding}");
    ensure!(finding.to_string().contains("net.ipv4.conf.eth0.send_redirects"), "{finding}");
    // It is true: a server that has itself spoken to a client answers that client directly.
    wait_for("the redirect", Duration::from_secs(20), || Ok(misled(&site)?.then_some(())))?;
    let before = site.client.snmp("Tcp", "OutRsts")?;
    let mut client = site.begin("fetch", PORT, "--upload 1000")?;
    wait_for("an answer past medlb, which the client resets", Duration::from_secs(30), || {
        ensure!(client.running(), "it ended: {}", client.log());
        Ok((site.client.snmp("Tcp", "OutRsts")? > before).then_some(()))
    })
}
