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

/// dcmtk looks its machine's name up for each image that it stores; where /etc/hosts does not have
/// the name, that took 5 s and more behind medlb's machine, which is the servers' gateway.
#[test]
fn a_name_server_that_is_not_there_is_known_at_once() -> Result<()> {
    const ASK: &str = "import socket\n\
        for family, server in ((socket.AF_INET, '192.0.2.53'), (socket.AF_INET6, '2001:db8::53')):\n\
        \x20 for number in range(20):\n\
        \x20   try: socket.socket(family, socket.SOCK_DGRAM).connect((server, 53))\n\
        \x20   except OSError: continue\n\
        \x20   print('a question would have left for', server)";
    let site = Site::build(Method::Nat, Arms::Two, 1)?;
    for (name, netns) in site.all() {
        let said = netns.run("/usr/bin/python3", &["-c", ASK])?;
        assert!(said.is_empty(), "{name}: {said}");
    }
    Ok(())
}

#[test]
fn dr_servers_answer_for_the_vip_but_not_to_arp() -> Result<()> {
    let site = Site::build(Method::Dr, Arms::One, 2)?;
    let _servers = site.serve(7000)?;
    let mut client = site.begin("fetch", 7000, "--upload 1000")?;
    client.wait(Duration::from_secs(30))?;
    assert!(client.log().contains("connecting"), "somebody answered ARP: {}", client.log());
    // What medlb will do, done by hand: frames for the VIP go to a server's hardware address.
    let mac = site.servers[1].mac("eth0")?;
    site.client.ip(&format!("neigh replace {} lladdr {mac} dev eth0", site.vip))?;
    let report = site.fetch("fetch", 7000, "--connections 20 --upload 10000 --download 10000")?;
    assert_eq!(report["servers"]["s2"], 20, "{report}");
    site.check_counters()
}

#[test]
fn what_a_killed_process_left_is_taken_away_by_the_next_one() -> Result<()> {
    let mut gone = std::process::Command::new("true").spawn()?;
    gone.wait()?;
    let name = format!("{}{}-0-client", tests::lab::cleanup::PREFIX, gone.id());
    tests::lab::run("ip", &["netns", "add", &name])?;
    let path = std::path::Path::new("/run/netns").join(&name);
    let mut inside = std::process::Command::new("nsenter")
        .arg(format!("--net={}", path.display()))
        .args(["sleep", "60"])
        .spawn()?;
    // nsenter must have entered before the namespace is looked at.
    wait_for("the process inside", Duration::from_secs(5), || {
        let pids = tests::lab::run("ip", &["netns", "pids", &name])?;
        Ok((!pids.trim().is_empty()).then_some(()))
    })?;
    let lab = tests::lab::Lab::new()?;
    assert!(!path.exists(), "the namespace is still there");
    let status = inside.wait()?;
    assert!(!status.success(), "the process inside was not ended");
    drop(lab);
    Ok(())
}

#[test]
fn an_interrupted_process_takes_everything_away() -> Result<()> {
    const CHILD: &str = "MEDLB_LAB_CHILD";
    if std::env::var_os(CHILD).is_some() {
        // Below: this test again, as a process of its own that does not end by itself.
        let site = Site::build(Method::Nat, Arms::Two, 2)?;
        let _servers = site.serve(7000)?;
        std::fs::write(site.lab.directory().join("built"), [])?;
        loop {
            std::thread::park();
        }
    }
    let mut child = std::process::Command::new(std::env::current_exe()?)
        .args(["--exact", "an_interrupted_process_takes_everything_away"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let prefix = format!("{}{}-", tests::lab::cleanup::PREFIX, child.id());
    let named = |directory: &std::path::Path| -> Result<Vec<std::path::PathBuf>> {
        let entries = std::fs::read_dir(directory)?.flatten().map(|entry| entry.path());
        let ours = |path: &std::path::PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        };
        Ok(entries.filter(ours).collect())
    };
    let directories = tests::lab::cleanup::directories();
    wait_for("the other process's site", Duration::from_secs(30), || {
        let built = named(&directories)?.iter().any(|path| path.join("built").exists());
        Ok(built.then_some(()))
    })?;
    let namespaces = std::path::Path::new("/run/netns");
    assert!(!named(namespaces)?.is_empty());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    assert_eq!(child.wait()?.code(), Some(128 + 15));
    assert!(named(namespaces)?.is_empty(), "{:?}", named(namespaces)?);
    assert!(named(&directories)?.is_empty(), "{:?}", named(&directories)?);
    Ok(())
}
