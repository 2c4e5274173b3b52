//! The laboratory itself, without medlb: what it builds carries traffic, and goes away.

use std::time::Duration;

use anyhow::Result;
use tests::lab::{Arms, Method, Site, wait_for};

#[test]
fn a_two_arm_site_carries_traffic_between_client_and_server_and_goes_away() -> Result<()> {
    let site = Site::build(Method::Nat, Arms::Two, 2)?;
    let traffic = env!("CARGO_BIN_EXE_traffic");
    let address = format!("{}:7000", site.addresses[1]);
    let arguments = ["serve", "--listen", &address, "--name", "s2"];
    let server = site.servers[1].spawn("serve", traffic, &arguments)?;
    wait_for("the server", Duration::from_secs(5), || {
        Ok(server.log().contains("listening").then_some(()))
    })?;
    // The client's way to the servers: medlb's machine routes.
    site.client.ip("route add 10.77.2.0/24 via 10.77.1.2")?;
    let arguments = ["fetch", "--to", &address, "--connections", "50", "--upload", "100000"];
    let report = site.client.run(traffic, &[&arguments[..], &["--download", "100000"]].concat())?;
    assert!(report.contains(r#""ok":50"#), "{report}");
    site.check_counters()?;
    let name = site.lab.name().to_owned();
    drop(server);
    drop(site);
    let left = std::fs::read_dir("/run/netns")?.flatten();
    let left: Vec<_> =
        left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name)).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}
