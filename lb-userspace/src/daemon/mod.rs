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
use crate::config;
use crate::config::model::Config;

/// A configuration that may be put in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// It.
    pub config: Config,
    /// What the operator should look at.
    pub warnings: Vec<String>,
}

/// Reads and validates a configuration file, and what it asks of this host.
///
/// # Errors
/// [`Failure::Configuration`] with everything that is wrong, a line each.
pub fn load(path: &Path) -> Result<Loaded, Failure> {
    read(path, true).map_err(Failure::Configuration)
}

/// As [`load`], but of the file alone: for commands that do not forward.
///
/// # Errors
/// As [`load`].
pub fn load_anywhere(path: &Path) -> Result<Loaded, Failure> {
    read(path, false).map_err(Failure::Configuration)
}

fn read(path: &Path, here: bool) -> Result<Loaded, String> {
    let name = path.display();
    let lines = |problems: &[config::Problem]| {
        problems.iter().map(|problem| format!("{name}: {problem}")).collect::<Vec<_>>()
    };
    let loaded = config::load(path).map_err(|errors| {
        let count = errors.errors.len();
        let count = if count == 1 { "1 error".to_owned() } else { format!("{count} errors") };
        format!("{name} is not valid, {count}:\n{}", lines(&errors.errors).join("\n"))
    })?;
    let mut warnings = lines(&loaded.warnings);
    if here {
        let mut missing = config::host::check_host(&loaded.config);
        loaded.locate(&mut missing);
        if !missing.is_empty() {
            let missing = lines(&missing).join("\n");
            return Err(format!("{name} cannot be run on this host:\n{missing}"));
        }
        let mut files = config::host::check_files(&loaded.config);
        loaded.locate(&mut files);
        warnings.extend(lines(&files));
    }
    Ok(Loaded { config: loaded.config, warnings })
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// It could not start.
pub async fn run(path: &Path, socket: Option<PathBuf>) -> Result<(), Failure> {
    let Loaded { config, warnings } = load(path)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    crate::dataplane::privileged()?;
    let socket = socket.unwrap_or_else(|| config.global.socket.clone());
    let file = path.to_owned();
    let load = Box::new(move || read(&file, true));
    let plan = start::Plan { config, path: path.to_owned(), load, socket };
    Ok(start::run(plan, adapters::open).await?)
}

/// Takes away the data plane and the addresses that medlb added; says what.
///
/// # Errors
/// Something could not be removed.
pub fn teardown(config: &Config) -> anyhow::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Addresses first: as long as the data plane is there, the host itself refuses no client.
    let released = runtime.block_on(crate::net::release_vips(&config.global.state_dir));
    let mut removed = crate::dataplane::teardown(&config.global.pin_dir)?;
    removed.extend(released?.iter().map(|vip| format!("removed the virtual address {vip}")));
    Ok(removed)
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
