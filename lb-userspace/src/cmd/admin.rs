//! `medlb drain`, `medlb halt` and `medlb online`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Context, Done, Failure, ui};
use crate::admin::AdminState;
use crate::api::client::{Client, decode};
use crate::api::model::{AdminChanged, Status};
use crate::api::protocol::{Command, Server};

/// Between two looks of `drain --wait`.
const LOOK: Duration = Duration::from_secs(1);

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

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    #[command(flatten)]
    server: AdminArgs,
    /// Wait until the last connection has ended
    #[arg(long)]
    wait: bool,
    /// With --wait: give up after this long, such as 10m; exit code 1 then
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

/// Sets the administrative state of a real server. It survives a restart of the daemon.
pub fn run(args: &AdminArgs, state: AdminState, context: &Context) -> Done {
    set(args, state, &mut context.client()?)?;
    Ok(ExitCode::SUCCESS)
}

/// Drains a real server, and waits for its last connection if asked to.
pub fn drain(args: &DrainArgs, context: &Context) -> Done {
    let mut client = context.client()?;
    let changed = set(&args.server, AdminState::Drain, &mut client)?;
    if args.wait {
        wait(&changed, &mut client, args.timeout)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn set(args: &AdminArgs, state: AdminState, client: &mut Client) -> Result<AdminChanged, Failure> {
    let server = Server { service: args.service.clone(), real_server: args.real_server.clone() };
    let command = match state {
        AdminState::Online => Command::Online(server),
        AdminState::Drain => Command::Drain(server),
        AdminState::Halt => Command::Halt(server),
    };
    let raw = client.ask(command)?;
    let changed = decode(&raw)?;
    ui::print(&if args.json { format!("{raw}\n") } else { text(&changed) })?;
    Ok(changed)
}

fn text(changed: &AdminChanged) -> String {
    let AdminChanged { service, real_server, from, to, active_connections } = changed;
    let name = format!("{service} / {real_server}");
    if from == to {
        return format!("{name}: was {to} already, {active_connections} active connections\n");
    }
    format!("{name}: {from} -> {to}, {active_connections} active connections\n")
}

fn wait(
    changed: &AdminChanged,
    client: &mut Client,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    let started = Instant::now();
    let mut active = changed.active_connections;
    while active > 0 {
        if timeout.is_some_and(|timeout| started.elapsed() >= timeout) {
            return Err(Failure::Failed(anyhow::anyhow!(
                "{active} connections are still active after {}; the server stays drained",
                ui::age(started.elapsed())
            )));
        }
        std::thread::sleep(LOOK);
        let now = remaining(&client.get(Command::Status)?, changed)?;
        if now != active {
            eprintln!("{now} active connections");
        }
        active = now;
    }
    Ok(())
}

/// Connections of the server that is drained.
fn remaining(status: &Status, of: &AdminChanged) -> Result<u64, Failure> {
    let service = status.services.iter().find(|service| service.label == of.service);
    let real = service
        .and_then(|service| service.real_servers.iter().find(|real| real.label == of.real_server))
        .ok_or_else(|| anyhow::anyhow!("a reload has taken this real server away"))?;
    if real.admin != "drain" {
        return Err(anyhow::anyhow!("meanwhile someone has set it to {}", real.admin).into());
    }
    Ok(real.active_connections)
}
