//! One file for each subcommand.

pub mod check;
pub mod probe;
pub mod schema;
