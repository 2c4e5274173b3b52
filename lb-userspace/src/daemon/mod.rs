//! The daemon: one task that owns the state ([`state`]) and turns ([`turn`]) around events from the
//! control socket, the health checks, the network and signals.

mod adapters;
mod calls;
pub mod doctor;
pub mod lock;
mod notify;
mod reload;
mod rotation;
pub mod seams;
mod start;
mod state;
#[cfg(test)]
pub mod testing;
mod turn;
mod view;
mod words;

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::cmd::Failure;
use crate::config::model::Config;

/// A configuration that may be put in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// It.
    pub config: Config,
    /// What the operator should look at.
    pub warnings: Vec<String>,
}

/// Reads and validates a configuration file.
///
/// # Errors
/// [`Failure::Configuration`] with everything that is wrong.
pub fn load(path: &Path) -> Result<Loaded, Failure> {
    let _ = path;
    Err(Failure::Configuration("not wired yet".into()))
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// It could not start.
pub async fn run(path: &Path, socket: Option<PathBuf>) -> Result<(), Failure> {
    let _ = (path, socket);
    Err(Failure::Configuration("not wired yet".into()))
}

/// Takes away the data plane and the addresses that medlb added; says what.
///
/// # Errors
/// Something could not be removed.
pub fn teardown(config: &Config) -> anyhow::Result<Vec<String>> {
    let _ = config;
    Ok(Vec::new())
}

/// Addresses of all servers of enabled services, fallback servers included.
pub fn destinations(config: &Config) -> HashSet<IpAddr> {
    let enabled = config.services.iter().filter(|service| service.enabled);
    enabled
        .flat_map(|service| {
            let fallback = service.fallback_server.iter().map(|server| server.address);
            service.real_servers.iter().map(|real| real.address).chain(fallback)
        })
        .collect()
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
