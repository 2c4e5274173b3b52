//! medlb: a layer-4 load balancer for hospitals. The command line is in [`cli`], each subcommand
//! in a file of its own under `cmd/`.

mod api;
mod cli;
mod cmd;
mod config;
mod dataplane;
mod desired;
mod health;
mod net;
mod reconcile;

fn main() -> std::process::ExitCode {
    cli::main()
}
