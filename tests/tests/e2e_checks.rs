//! Checks of DR services go through the VIP: what they pass is what clients need.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::lab::{Arms, Medlb, Method, Process, Site, find, real, wait_for};

/// Services whose checks go through the VIP, one for each type of check, and their ports.
const THROUGH: [(&str, &str, &str); 4] = [
    ("Connect", "7000", "health_check: {type: connect}"),
    ("Dicom", "104", "health_check: {type: dicom-echo, called_ae: STORE}"),
    ("Web", "80", "health_check: {type: http, path: /}"),
    ("Ping", "7001", "health_check: {type: ping}"),
];
const RIP: &str = "OwnAddress";

/// dcmtk's storescp and Python's web server.
fn serve(site: &Site) -> Result<Vec<Process>> {
    let mut servers = site.serve(7000)?;
    servers.extend(site.serve(7002)?);
    for netns in &site.servers {
        let arguments = ["-v", "-dhl", "--ignore", "--aetitle", "STORE", "104"];
        servers.push(netns.spawn("storescp", "storescp", &arguments)?);
        let directory = site.lab.directory().to_string_lossy().into_owned();
        let arguments = ["-m", "http.server", "--bind", "0.0.0.0", "--directory", &directory, "80"];
        servers.push(netns.spawn("web", "/usr/bin/python3", &arguments)?);
    }
    Ok(servers)
}

fn state<'a>(status: &'a Value, label: &str) -> &'a Value {
    find(status, label).map_or(&Value::Null, |service| &service["state"])
}

/// The second server of every service that is checked through the VIP is out, and says why.
fn second_is_out(site: &Site, medlb: &Medlb) -> Result<()> {
    for (label, ..) in THROUGH {
        let hint = format!("is the VIP {} bound on its loopback?", site.vip);
        wait_for(&format!("{label}-2 out because of its VIP"), Duration::from_secs(15), || {
            let status = medlb.status()?;
            let server = real(&status, label, &format!("{label}-2"))?;
            ensure!(server["effective"] == "out", "{server:#}");
            let detail = server["last_check"]["detail"].as_str().unwrap_or_default();
            ensure!(detail.contains(&hint), "{label}: {detail}");
            Ok(Some(()))
        })?;
        ensure!(state(&medlb.status()?, label) == "yellow", "{label}");
    }
    ensure!(state(&medlb.status()?, RIP) == "green", "via: rip does not look at the VIP");
    Ok(())
}

#[test]
fn a_dr_server_without_the_vip_is_out_and_the_check_says_why() -> Result<()> {
    let site = Site::build(Method::Dr, Arms::One, 2)?;
    let servers = serve(&site)?;
    let mut services: String =
        THROUGH.iter().map(|(label, ports, check)| site.service(label, ports, &[check])).collect();
    services += &site.service(RIP, "7002", &["health_check: {type: connect, via: rip}"]);
    let mut medlb = Medlb::start(&site, &site.config(&services))?;
    let all_green = |medlb: &Medlb| -> Result<()> {
        for label in THROUGH.map(|(label, ..)| label).into_iter().chain([RIP]) {
            medlb.wait_state(label, "green")?;
        }
        Ok(())
    };
    all_green(&medlb)?;
    // The archives were asked through the VIP, and every association that they saw was released.
    for log in servers.iter().map(Process::log).filter(|log| log.contains("Echo")) {
        ensure!(log.contains("Association Release"), "{log}");
        for word in ["Abort", "Fail", "Peer closed"] {
            ensure!(!log.contains(word), "a broken association ({word}): {log}");
        }
    }

    let vip = format!("{}/32", site.vip);
    site.servers[1].ip(&format!("addr del {vip} dev lo"))?;
    second_is_out(&site, &medlb)?;

    medlb.crash()?;
    medlb.launch()?;
    second_is_out(&site, &medlb)?;

    site.servers[1].ip(&format!("addr add {vip} dev lo"))?;
    all_green(&medlb)?;
    medlb.crash()?;
    medlb.launch()?;
    wait_for("a check by the new daemon", Duration::from_secs(10), || {
        let status = medlb.status()?;
        let passes = |label: &str| {
            let server = real(&status, label, &format!("{label}-2"));
            server.is_ok_and(|server| server["last_check"]["result"] == "pass")
        };
        Ok(THROUGH.iter().all(|(label, ..)| passes(label)).then_some(()))
    })?;
    all_green(&medlb)?;

    site.check_counters()
}

/// The daemon's open files, once probes that are under way have ended.
fn open_files(medlb: &Medlb) -> Result<usize> {
    let directory = format!("/proc/{}/fd", medlb.pid()?);
    let mut least = usize::MAX;
    for _ in 0..20 {
        least = least.min(std::fs::read_dir(&directory)?.count());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(least)
}

#[test]
fn a_thousand_checks_in_a_row_break_no_association_and_leave_no_file_open() -> Result<()> {
    const CHECKS: usize = 1000;
    let site = Site::build(Method::Nat, Arms::Two, 1)?;
    let arguments = ["-v", "-dhl", "--ignore", "--aetitle", "STORE", "104"];
    let archive = site.servers[0].spawn("storescp", "storescp", &arguments)?;
    let check = "health_check: {type: dicom-echo, called_ae: STORE, interval: 30s, timeout: 10s}";
    let service = site.service("Dicom", "104", &[check]);
    let medlb = Medlb::start(&site, &site.config(&service))?;
    medlb.wait_state("Dicom", "green")?;
    let before = open_files(&medlb)?;
    for _ in 0..CHECKS {
        medlb.ask(&["check-now", "Dicom", "Dicom-1"])?;
    }
    let after = open_files(&medlb)?;
    ensure!(after <= before, "{before} files were open before, {after} after");
    let log = archive.log();
    let released = log.matches("Association Release").count();
    ensure!(released >= CHECKS, "{released} associations were released");
    for word in ["Abort", "Fail", "Peer closed"] {
        ensure!(!log.contains(word), "a broken association ({word}): {log}");
    }
    site.check_counters()
}
