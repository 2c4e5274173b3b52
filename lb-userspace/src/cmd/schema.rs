//! `medlb schema`: the JSON Schema of the configuration file, for editors.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use crate::config;

/// Arguments of `medlb schema`: none.
#[derive(Clone, Debug, Args)]
pub struct SchemaArgs {}

/// Prints the schema.
pub fn run(_: &SchemaArgs) -> ExitCode {
    let schema = config::schema();
    // A reader that went away has read enough.
    match writeln!(io::stdout().lock(), "{:#}", schema.as_value()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
