//! One file for each subcommand.

pub mod probe;
pub mod check;
pub mod schema;
