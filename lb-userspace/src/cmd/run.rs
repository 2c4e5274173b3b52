//! `medlb run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{Context, Done, Failure};
use crate::config::model::Config;
use crate::daemon;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the daemon until it is told to stop.
pub fn run(args: &RunArgs, context: &Context) -> Done {
    // The daemon outlives the directory that it was started in.
    let path = std::path::absolute(&args.config)
        .with_context(|| format!("cannot find {}", args.config.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the asynchronous runtime")?;
    let ended = runtime.block_on(daemon::run(&path, context.socket.clone()));
    // A sweep that is under way is not worth waiting for.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ended.map(|()| ExitCode::SUCCESS)
}

/// Loads a configuration file for a command that does not forward. `check` tells its warnings.
///
/// # Errors
/// [`Failure::Configuration`] with every error.
pub fn load(path: &Path) -> Result<Config, Failure> {
    Ok(daemon::load_anywhere(path)?.config)
}
