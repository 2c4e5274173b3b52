//! The deployments of the guides, as the files under `examples/` have them: every service comes up
//! on real servers of its kind and answers on every port.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Guide, Medlb, Promised};

/// Starts medlb with the file and asks every port of every service.
fn runs(guide: &Guide) -> Result<Medlb> {
    let medlb = Medlb::start_in(&guide.lb, guide.lab.directory(), &guide.config())?;
    for service in &guide.services {
        medlb.wait_health(&service.label, &vec!["up"; service.reals.len()])?;
        medlb.wait_state(&service.label, "green")?;
    }
    for service in &guide.services {
        for &port in &service.ports {
            let what = format!("{} on port {port}", service.label);
            answers(guide, service, port).context(what)?;
        }
    }
    Ok(medlb)
}

fn answers(guide: &Guide, service: &Promised, port: u16) -> Result<()> {
    let (vip, client) = (service.vip.to_string(), Ipv4Addr::new(172, 31, 0, 10));
    if service.dicom {
        let echo = ["-aet", "CT1", "-aec", "ANY", "-to", "10", &vip, &port.to_string()];
        return guide.client.run("echoscu", &echo).map(drop);
    }
    let (own, other) = guide.ask(&guide.client, service.vip, port)?;
    match service.method.as_str() {
        "dr" => ensure!(own == service.vip && other == client, "{own} {other}"),
        "nat" => ensure!(service.reals.contains(&own) && other == client, "{own} {other}"),
        _ => {
            ensure!(service.reals.contains(&own) && other != client, "{own} {other}");
            ensure!(service.source.is_none_or(|source| source == other), "{own} {other}");
        }
    }
    Ok(())
}

#[test]
fn ge_dosewatch_runs() -> Result<()> {
    runs(&Guide::build("ge-dosewatch.yaml")?).map(drop)
}

#[test]
fn konica_minolta_dispatcher_paragon_runs() -> Result<()> {
    runs(&Guide::build("konica-minolta-dispatcher-paragon.yaml")?).map(drop)
}

#[test]
fn the_medical_imaging_protocols_run() -> Result<()> {
    runs(&Guide::build("medical-imaging-protocols.yaml")?).map(drop)
}

#[test]
fn oki_dicom_printers_run() -> Result<()> {
    runs(&Guide::build("oki-dicom-printers.yaml")?).map(drop)
}

#[test]
fn philips_intellispace_pacs_runs_and_its_servers_reach_out_with_one_address() -> Result<()> {
    let mut guide = Guide::build("philips-intellispace-pacs.yaml")?;
    let (server, outside) = guide.insider(Ipv4Addr::new(10, 10, 5, 59), 11112)?;
    let _medlb = runs(&guide)?;
    let (_, seen) = guide.ask(&server, outside, 11112)?;
    ensure!(seen == Ipv4Addr::new(10, 10, 5, 100), "iExport leaves with {seen}");
    Ok(())
}

#[test]
fn no_example_is_left_out() -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let own = include_str!("e2e_examples.rs");
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(own.contains(&format!("{name:?}")), "{name} has no test here");
    }
    Ok(())
}
