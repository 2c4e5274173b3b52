//! `medlb drain`, `medlb halt` and `medlb online`.

use clap::Args;

use super::{Context, Done, ui};
use crate::admin::AdminState;
use crate::api::client::decode;
use crate::api::model::AdminChanged;
use crate::api::protocol::{Command, Server};

/// Arguments of `drain`, `halt` and `online`.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// Label of the virtual service
    service: String,
    /// Label of the real server
    #[arg(value_name = "REAL")]
    real_server: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Sets the administrative state of a real server. It survives a restart of the daemon.
pub fn run(args: &AdminArgs, state: AdminState, context: &Context) -> Done {
    let server = Server { service: args.service.clone(), real_server: args.real_server.clone() };
    let command = match state {
        AdminState::Online => Command::Online(server),
        AdminState::Drain => Command::Drain(server),
        AdminState::Halt => Command::Halt(server),
    };
    let raw = context.client()?.ask(command)?;
    if args.json {
        ui::print(&format!("{raw}\n"))?;
    } else {
        ui::print(&text(&decode(&raw)?))?;
    }
    Ok(std::process::ExitCode::SUCCESS)
}

fn text(changed: &AdminChanged) -> String {
    let AdminChanged { service, real_server, from, to, active_connections } = changed;
    let name = format!("{service} / {real_server}");
    if from == to {
        return format!("{name}: was {to} already, {active_connections} active connections\n");
    }
    format!("{name}: {from} -> {to}, {active_connections} active connections\n")
}
