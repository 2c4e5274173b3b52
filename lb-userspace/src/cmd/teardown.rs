//! `medlb teardown`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Context, Done, Failure, run, ui};
use crate::api::server::listening_pid;
use crate::daemon;

/// Arguments of `teardown`.
#[derive(Debug, Args)]
pub struct TeardownArgs {
    /// The configuration file: names pin_dir and state_dir
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Stops forwarding: detaches the programs, removes maps, and takes away the addresses that medlb
/// added. Does nothing when there is nothing.
pub fn run(args: &TeardownArgs, context: &Context) -> Done {
    let config = run::load(&args.config)?;
    let socket = context.socket.clone().unwrap_or_else(|| config.global.socket.clone());
    if let Some(pid) = daemon::lock::holder(&config.global.state_dir).or(listening_pid(&socket)) {
        return Err(Failure::Failed(anyhow::anyhow!(
            "medlb is still running (pid {pid}): stop it first with `systemctl stop medlb` or \
             `kill {pid}`, then tear down"
        )));
    }
    let removed = daemon::teardown(&config)?;
    if removed.is_empty() {
        ui::print("there was nothing to take away\n")?;
    }
    for line in removed {
        ui::print(&format!("{line}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
