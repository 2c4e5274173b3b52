//! A medlb of its own for one laboratory: socket, state and pins lie apart from any other's.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Netns, Process, Site, sibling, wait_for};

/// How long a start may take: loading and verifying included, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A running (or killed) daemon and its files.
#[derive(Debug)]
pub struct Medlb {
    netns: Netns,
    program: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    process: Option<Process>,
    starts: u32,
    /// Of the next start.
    pub log_level: &'static str,
}

impl Site {
    /// A configuration file: this site's interfaces and paths, quick checks, and `services`, the
    /// YAML below `virtual_services:`.
    pub fn config(&self, services: &str) -> String {
        let directory = self.lab.directory().display();
        format!(
            "interfaces: [{}]\n\
             global:\n  \
               socket: {directory}/medlb.sock\n  \
               state_dir: {directory}/state\n  \
               pin_dir: {}\n  \
               maximum_flows: 16384\n  \
               defaults: {{interval: 1s, timeout: 500ms, rise: 2, fall: 2}}\n\
             virtual_services:\n{services}",
            self.links.join(", "),
            self.lab.pins().display(),
        )
    }

    /// One service over all real servers, by this site's method; `more` are further lines of it
    /// (`key: value`).
    pub fn service(&self, label: &str, ports: &str, more: &[&str]) -> String {
        let reals: Vec<_> = self.addresses.iter().map(|&address| (address.into(), "")).collect();
        self.service_of(label, ports, more, &reals)
    }

    /// The same for IPv6.
    pub fn service6(&self, label: &str, ports: &str, more: &[&str]) -> String {
        let reals: Vec<_> = self.addresses6().iter().map(|&ip| (ip.into(), "")).collect();
        self.service_of(label, ports, more, &reals)
    }

    /// The same over these real servers: each an address and further fields of it
    /// (`, key: value`). They are called `LABEL-1` and so on.
    pub fn service_of(
        &self,
        label: &str,
        ports: &str,
        more: &[&str],
        reals: &[(IpAddr, &str)],
    ) -> String {
        let v6 = reals.iter().any(|(address, _)| address.is_ipv6());
        let mut lines = vec![
            format!("  - label: {label}"),
            format!("    address: \"{}\"", self.vip_of(v6)),
            format!("    ports: \"{ports}\""),
            format!("    forwarding_method: {}", self.method.name()),
        ];
        if self.method == super::Method::Snat {
            let source: IpAddr =
                if v6 { self.source_address6().into() } else { self.source_address().into() };
            lines.push(format!("    source_address: \"{source}\""));
        }
        lines.extend(more.iter().map(|line| format!("    {line}")));
        lines.push("    real_servers:".into());
        for (number, (address, fields)) in reals.iter().enumerate() {
            let label = format!("{label}-{}", number + 1);
            lines.push(format!("      - {{label: {label}, address: \"{address}\"{fields}}}"));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

impl Medlb {
    /// Starts `medlb run` at the site with this configuration and waits until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer; the message has its log.
    pub fn start(site: &Site, config: &str) -> Result<Self> {
        let mut medlb = Self::prepare(site, config)?;
        medlb.launch()?;
        Ok(medlb)
    }

    /// As [`Medlb::start`], in any namespace; the configuration's socket must be `medlb.sock` in
    /// `directory`.
    ///
    /// # Errors
    /// As there.
    pub fn start_in(netns: &Netns, directory: &Path, config: &str) -> Result<Self> {
        let mut medlb = Self::prepare_in(netns, directory, config)?;
        medlb.launch()?;
        Ok(medlb)
    }

    /// Writes the configuration but starts nothing.
    ///
    /// # Errors
    /// `medlb` is not built, or the file cannot be written.
    pub fn prepare(site: &Site, config: &str) -> Result<Self> {
        Self::prepare_in(&site.lb, site.lab.directory(), config)
    }

    fn prepare_in(netns: &Netns, directory: &Path, config: &str) -> Result<Self> {
        let path = directory.join("medlb.yaml");
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            netns: netns.clone(),
            program: sibling("medlb")?,
            config: path,
            socket: directory.join("medlb.sock"),
            process: None,
            starts: 0,
            log_level: "info",
        })
    }

    /// Starts the daemon (again) and waits until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer; the message has its log.
    pub fn launch(&mut self) -> Result<()> {
        let mut command = self.netns.command(&self.program);
        command.args(["run", "--log-level", self.log_level, "--config"]).arg(&self.config);
        self.starts += 1;
        self.process = Some(self.netns.start(&format!("medlb-{}", self.starts), &mut command)?);
        let pid = u64::from(self.pid()?);
        let answers = wait_for("an answer of medlb", START, || {
            if !self.process.as_mut().is_some_and(Process::running) {
                return Ok(Some(false));
            }
            Ok((self.status()?["pid"] == pid).then_some(true))
        });
        match answers {
            Ok(true) => Ok(()),
            Ok(false) => bail!("medlb ended while starting:\n{}", self.log()),
            Err(error) => bail!("{error:#}; its log:\n{}", self.log()),
        }
    }

    /// The daemon's process id.
    ///
    /// # Errors
    /// It was killed or not started.
    pub fn pid(&self) -> Result<u32> {
        self.process.as_ref().map(Process::pid).context("medlb does not run")
    }

    /// What the daemon that runs, or ran last, has logged.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// The configuration file.
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// The directory entry of its pins.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Writes another configuration and reloads.
    ///
    /// # Errors
    /// The command cannot be run; that it fails is in the output.
    pub fn reload(&self, config: &str) -> Result<Output> {
        fs::write(&self.config, config)?;
        self.output(&["reload"])
    }

    /// A command for this daemon.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.netns.command(&self.program);
        command.args(arguments);
        command.arg("--socket").arg(&self.socket);
        command
    }

    /// Runs a subcommand against this daemon to its end.
    ///
    /// # Errors
    /// It cannot be started; that it fails is in the output.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().with_context(|| format!("medlb {arguments:?}"))
    }

    /// Runs a subcommand that must succeed and returns its standard output.
    ///
    /// # Errors
    /// It fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        super::process::output(&mut self.command(arguments))
    }

    /// `medlb status --json`.
    ///
    /// # Errors
    /// No answer, or not JSON.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask(&["status", "--json"])?)?)
    }

    /// `medlb stats --json`.
    ///
    /// # Errors
    /// No answer, or not JSON.
    pub fn stats(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask(&["stats", "--json"])?)?)
    }

    /// Waits until the service with this label is in `state` (green, yellow, red).
    ///
    /// # Errors
    /// It is not, in 30 s; the message has the status.
    pub fn wait_state(&self, label: &str, state: &str) -> Result<()> {
        let what = format!("{label} {state}");
        let waited = wait_for(&what, Duration::from_secs(30), || {
            let status = self.status()?;
            Ok(find(&status, label).filter(|service| service["state"] == state).map(drop))
        });
        waited.map_err(|error| self.explain(error))
    }

    /// Waits until the checks of a service's real servers have come to these judgements, in order
    /// (a service is green before its first check, since nothing speaks against its servers).
    ///
    /// # Errors
    /// They have not, in 30 s; the message has the status and the log.
    pub fn wait_health(&self, label: &str, judgements: &[&str]) -> Result<()> {
        let what = format!("{label}: {}", judgements.join(", "));
        let waited = wait_for(&what, Duration::from_secs(30), || {
            let status = self.status()?;
            let Some(servers) = find(&status, label).and_then(|s| s["real_servers"].as_array())
            else {
                return Ok(None);
            };
            let now: Vec<_> =
                servers.iter().filter_map(|server| server["health"].as_str()).collect();
            Ok((now == judgements).then_some(()))
        });
        waited.map_err(|error| self.explain(error))
    }

    /// Adds the status and the log to an error.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let status = self.ask(&["status"]).unwrap_or_else(|error| format!("{error:#}"));
        error.context(format!("{status}\n{}", self.log()))
    }

    /// SIGKILL, as a crash would.
    ///
    /// # Errors
    /// It does not run.
    pub fn crash(&mut self) -> Result<()> {
        self.process.as_mut().context("medlb does not run")?.kill()
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not run, does not end in 15 s, or ends with an error.
    pub fn stop(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("medlb does not run")?;
        process.signal(nix::sys::signal::Signal::SIGTERM)?;
        process.finish(Duration::from_secs(15)).map(drop)
    }

    /// `medlb teardown`.
    ///
    /// # Errors
    /// It fails.
    pub fn teardown(&self) -> Result<String> {
        let mut command = self.netns.command(&self.program);
        command.arg("teardown").arg("--config").arg(&self.config);
        super::process::output(&mut command)
    }
}

/// The real server with this label, of the service with this one, in `status --json` or
/// `stats --json`.
///
/// # Errors
/// There is none.
pub fn real<'a>(document: &'a Value, service: &str, label: &str) -> Result<&'a Value> {
    find(document, service)
        .and_then(|service| service["real_servers"].as_array())
        .and_then(|reals| reals.iter().find(|real| real["label"] == label))
        .with_context(|| format!("no {service}/{label} in {document:#}"))
}

/// The service with this label in `status --json` or `stats --json`.
pub fn find<'a>(document: &'a Value, label: &str) -> Option<&'a Value> {
    document["services"].as_array()?.iter().find(|service| service["label"] == label)
}
