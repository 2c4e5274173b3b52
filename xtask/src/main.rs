//! `cargo xtask`: build, set up, demonstrate, test. One file for each command.

fn main() {}
