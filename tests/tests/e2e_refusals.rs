//! What medlb refuses to start with: a plain error that says what to do, and nothing half-attached.

use std::process::Output;

use anyhow::{Result, ensure};
use tests::lab::{Arms, Medlb, Method, Pass, Site, sibling};

const FAILED: i32 = 1;
const INVALID: i32 = 78;

fn site() -> Result<Site> {
    Site::build(Method::Nat, Arms::Two, 1)
}

/// Runs `medlb run` with this configuration to its end.
fn run(site: &Site, config: &str) -> Result<Output> {
    let medlb = Medlb::prepare(site, config)?;
    // A daemon that starts after all must not hang the test.
    let mut command = site.lb.command("timeout");
    command.arg("20").arg(sibling("medlb")?).arg("run").arg("--config").arg(medlb.config_path());
    Ok(command.output()?)
}

fn refused(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(code), "ended with {:?}: {text}", output.status.code());
    for word in words {
        ensure!(text.contains(word), "no `{word}` in: {text}");
    }
    ensure!(!text.contains("panicked"), "{text}");
    Ok(())
}

/// No program, no pin, no VIP.
fn nothing_attached(site: &Site, links: &[&str]) -> Result<()> {
    for link in links {
        let shown = site.lb.ip(&format!("-d link show dev {link}"))?;
        ensure!(!shown.contains("xdp"), "half-attached: {shown}");
    }
    let addresses = site.lb.ip("-o addr show")?;
    ensure!(!addresses.contains(&site.vip.to_string()), "the VIP stayed: {addresses}");
    ensure!(!site.lab.pins().exists(), "pins stayed");
    Ok(())
}

#[test]
fn another_xdp_program_on_an_interface_is_left_alone_and_nothing_is_attached() -> Result<()> {
    let site = site()?;
    let _other = Pass::attach(&site.lb, "eth1")?;
    let output = run(&site, &site.config(&site.service("Archive", "104", &[])))?;
    refused(&output, FAILED, &["eth1", "XDP program"])?;
    nothing_attached(&site, &["eth0"])?;
    let other = site.lb.ip("-d link show dev eth1")?;
    ensure!(other.contains("xdp"), "the other program is gone: {other}");
    Ok(())
}

#[test]
fn a_missing_interface_is_named() -> Result<()> {
    let site = site()?;
    let config = site.config(&site.service("Archive", "104", &[])).replace("eth1", "eth7");
    refused(&run(&site, &config)?, INVALID, &["interfaces[1]", "eth7"])?;
    nothing_attached(&site, &["eth0", "eth1"])
}

#[test]
fn without_privileges_it_says_what_to_do() -> Result<()> {
    let site = site()?;
    let medlb = Medlb::prepare(&site, &site.config(&site.service("Archive", "104", &[])))?;
    let mut command = site.lb.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command.arg(sibling("medlb")?).arg("run").arg("--config").arg(medlb.config_path());
    refused(&command.output()?, FAILED, &["root"])?;
    nothing_attached(&site, &["eth0", "eth1"])
}

#[test]
fn every_error_of_a_file_is_told_at_once() -> Result<()> {
    let site = site()?;
    let services = site.service("Archive", "104", &["scheduler: wlcc"])
        + &site.service("Overlap", "100-110", &[]);
    let output = run(&site, &site.config(&services))?;
    refused(&output, INVALID, &["wlcc", "wlc"])?;
    let overlapping =
        site.service("Archive", "104", &[]) + &site.service("Overlap", "100-110", &[]);
    refused(&run(&site, &site.config(&overlapping))?, INVALID, &["Overlap", "104"])?;
    nothing_attached(&site, &["eth0", "eth1"])
}

#[test]
fn commands_without_a_daemon_end_with_69() -> Result<()> {
    let site = site()?;
    let medlb = Medlb::prepare(&site, &site.config(&site.service("Archive", "104", &[])))?;
    for command in ["status", "stats", "reload"] {
        let output = medlb.output(&[command])?;
        ensure!(output.status.code() == Some(69), "{command}: {:?}", output.status.code());
    }
    Ok(())
}
