//! medlb: a layer-4 load balancer for hospitals. The command line is in [`cli`], each subcommand
//! in a file of its own under `cmd/`.

mod admin;
mod api;
mod cli;
mod cmd;
mod config;
mod daemon;
mod dataplane;
mod desired;
mod health;
mod logging;
mod net;
mod reconcile;

fn main() -> std::process::ExitCode {
    cli::main()
}
