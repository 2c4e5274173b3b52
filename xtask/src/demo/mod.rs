//! `cargo xtask demo`.

use anyhow::Result;
use clap::ValueEnum;

/// A forwarding method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// Direct routing.
    Dr,
    /// Destination translation.
    Nat,
    /// Destination and source translation.
    Snat,
}

/// Shows it.
///
/// # Errors
/// Anything that was claimed did not happen.
pub fn run(_modes: &[ModeName]) -> Result<()> {
    Ok(())
}
