//! The command line: arguments, logging, exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cmd::{self, Context};
use crate::logging;

/// Where the daemon listens unless `--socket` or the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/medlb/medlb.sock";

const EXAMPLES: &str = "\
Examples:
  medlb check --config /etc/medlb.yaml     is the file right?
  medlb run --config /etc/medlb.yaml       load balance until stopped
  medlb status                             what is up, what is down, and why
  medlb stats --watch                      packets and connections, each second
  medlb drain DICOM-Modalities DICOM1      no new connections to this server
  medlb explain DICOM-Modalities DICOM1    all there is to know about it
  medlb teardown --config /etc/medlb.yaml  stop forwarding and take everything away

Exit codes:
  0 done   1 failed   2 the command line is wrong   69 no daemon answers
  78 the configuration is invalid
  (status --check: 0 green, 1 yellow, 2 red, 3 unknown)";

/// medlb: a layer-4 load balancer for hospitals, in XDP.
#[derive(Debug, Parser)]
#[command(name = "medlb", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Accepted before or after the subcommand.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// The daemon's control socket [default: /run/medlb/medlb.sock; for `run`: global.socket]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How much to log: error, warn, info, debug, trace, or a filter such as medlb::health=debug
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Log lines for people or for programs
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    pub color: Color,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of words.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Not at all.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: attach, forward, check health; stops at SIGTERM or Ctrl-C, reloads at SIGHUP
    Run(cmd::run::RunArgs),
    /// Say whether a configuration file is right, and everything that is wrong with it
    Check(cmd::check::CheckArgs),
    /// Make the daemon read its configuration file again
    Reload(cmd::reload::ReloadArgs),
    /// Show services, real servers and their health
    Status(cmd::status::StatusArgs),
    /// Show packets, bytes, connections, drops and table fill levels
    Stats(cmd::stats::StatsArgs),
    /// List connections
    Connections(cmd::connections::ConnectionsArgs),
    /// List which client is bound to which real server
    Persistence(cmd::persistence::PersistenceArgs),
    /// Give a real server no new connections; established ones go on
    Drain(cmd::admin::DrainArgs),
    /// Take a real server out at once; established connections follow on_down
    Halt(cmd::admin::AdminArgs),
    /// Give a real server new connections again
    Online(cmd::admin::AdminArgs),
    /// Look for trouble on this host and in the running load balancer
    Doctor(cmd::doctor::DoctorArgs),
    /// Tell everything about one real server: its checks, its path, why it is in or out
    Explain(cmd::explain::ExplainArgs),
    /// Check a real server now instead of when its check is next due
    CheckNow(cmd::check_now::CheckNowArgs),
    /// Check any server by hand, without a daemon
    Probe(Box<cmd::probe::ProbeArgs>),
    /// Print the JSON Schema of the configuration file, for editors
    Schema(cmd::schema::SchemaArgs),
    /// Stop forwarding: detach the programs, remove maps and addresses (connections are lost)
    Teardown(cmd::teardown::TeardownArgs),
}

/// Runs medlb and gives its exit code: 0 done, 1 failed, 2 the command line is wrong, 69 no daemon
/// answers, 78 the configuration is invalid.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help | head` must not turn into an error.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let daemon = matches!(cli.command, Command::Run(_));
    if let Err(error) = logging::init(&cli.global, daemon) {
        eprintln!("medlb: {error:#}");
        return ExitCode::from(2);
    }
    let context = Context::new(&cli.global);
    match dispatch(cli.command, &context) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command, context: &Context) -> cmd::Done {
    use crate::admin::AdminState;
    match command {
        Command::Run(args) => cmd::run::run(&args, context),
        Command::Check(args) => Ok(cmd::check::run(&args)),
        Command::Probe(args) => Ok(cmd::runtime()?.block_on(cmd::probe::run(*args))),
        Command::Schema(args) => Ok(cmd::schema::run(&args)),
        Command::Reload(args) => cmd::reload::run(&args, context),
        Command::Status(args) => cmd::status::run(&args, context),
        Command::Stats(args) => cmd::stats::run(&args, context),
        Command::Connections(args) => cmd::connections::run(&args, context),
        Command::Persistence(args) => cmd::persistence::run(&args, context),
        Command::Drain(args) => cmd::admin::drain(&args, context),
        Command::Halt(args) => cmd::admin::run(&args, AdminState::Halt, context),
        Command::Online(args) => cmd::admin::run(&args, AdminState::Online, context),
        Command::Doctor(args) => cmd::doctor::run(&args, context),
        Command::Explain(args) => cmd::explain::run(&args, context),
        Command::CheckNow(args) => cmd::check_now::run(&args, context),
        Command::Teardown(args) => cmd::teardown::run(&args, context),
    }
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
