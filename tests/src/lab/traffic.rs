//! The traffic program at both ends of a site.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Netns, Process, Site, sibling, wait_for};

/// Long enough for 100 MB on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

impl Site {
    /// Starts a TCP server on this port of every real server; they call themselves `s1`, `s2`, ….
    ///
    /// # Errors
    /// The program is not built, or cannot listen.
    pub fn serve(&self, port: u16) -> Result<Vec<Process>> {
        (0..self.servers.len()).map(|number| self.serve_one(number, "serve", port)).collect()
    }

    /// The same, over UDP. DR servers answer from the VIP because they listen on it.
    ///
    /// # Errors
    /// The program is not built, or cannot listen.
    pub fn serve_udp(&self, port: u16) -> Result<Vec<Process>> {
        (0..self.servers.len()).map(|number| self.serve_one(number, "udp-serve", port)).collect()
    }

    /// Starts one server: `number` counts from 0, `kind` is `serve` or `udp-serve`.
    ///
    /// # Errors
    /// The program is not built, or cannot listen.
    pub fn serve_one(&self, number: usize, kind: &str, port: u16) -> Result<Process> {
        let server = &self.servers[number];
        let addresses = match (kind, self.method) {
            // An unconnected socket on all addresses would answer from the server's own.
            ("udp-serve", super::Method::Dr) => vec![self.vip.into(), self.vip6.into()],
            _ => vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED)], // IPv4 too
        };
        let name = format!("s{}", number + 1);
        let mut command = server.command(sibling("traffic")?);
        command.args([kind, "--name", &name]);
        for address in addresses {
            command.arg("--listen").arg(SocketAddr::new(address, port).to_string());
        }
        let mut process = server.start(&format!("{kind}-{port}"), &mut command)?;
        wait_for(&format!("{kind} on {name}"), Duration::from_secs(10), || {
            anyhow::ensure!(process.running(), "it ended: {}", process.log());
            Ok(process.log().contains("listening").then_some(()))
        })?;
        Ok(process)
    }

    /// Starts a client that speaks to the VIP; `arguments` follow `--to VIP:PORT`.
    ///
    /// # Errors
    /// The program is not built.
    pub fn begin(&self, kind: &str, port: u16, arguments: &str) -> Result<Process> {
        self.begin_to(kind, SocketAddr::new(self.vip.into(), port), arguments)
    }

    /// Starts a client that speaks to this address.
    ///
    /// # Errors
    /// The program is not built.
    pub fn begin_to(&self, kind: &str, to: SocketAddr, arguments: &str) -> Result<Process> {
        let to = to.to_string();
        let mut all = vec![kind, "--to", &to];
        all.extend(arguments.split_whitespace());
        let number = super::NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.client.spawn(&format!("{kind}-{number}"), sibling("traffic")?, &all)
    }

    /// Runs a client to its end and returns its report: `ok`, `failed`, `servers`, `errors`.
    ///
    /// # Errors
    /// A connection failed or carried other bytes than it should.
    pub fn fetch(&self, kind: &str, port: u16, arguments: &str) -> Result<Value> {
        let report = report(&mut self.begin(kind, port, arguments)?);
        report.with_context(|| self.losses())
    }

    /// The same over IPv6.
    ///
    /// # Errors
    /// A connection failed or carried other bytes than it should.
    pub fn fetch6(&self, kind: &str, port: u16, arguments: &str) -> Result<Value> {
        let to = SocketAddr::new(self.vip6.into(), port);
        let report = report(&mut self.begin_to(kind, to, arguments)?);
        report.with_context(|| self.losses())
    }

    /// What the kernel dropped anywhere, for the words of an error.
    fn losses(&self) -> String {
        let all = self.servers.iter().chain([&self.client, &self.lb, &self.switch]);
        all.map(Netns::losses).collect::<Vec<_>>().join("\n")
    }
}

/// Waits for a client's end and returns its report.
///
/// # Errors
/// A connection failed or carried other bytes than it should.
pub fn report(client: &mut Process) -> Result<Value> {
    let text = client.finish(LIMIT)?;
    let line = text.lines().rfind(|line| line.starts_with('{')).context("no report")?;
    Ok(serde_json::from_str(line)?)
}
