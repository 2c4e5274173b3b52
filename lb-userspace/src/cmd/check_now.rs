//! `medlb check-now`.

use std::process::ExitCode;

use clap::Args;

use super::{Context, Done, ui};
use crate::api::client::decode;
use crate::api::model::Checked;
use crate::api::protocol::{Command, Server};

/// Arguments of `check-now`.
#[derive(Debug, Args)]
pub struct CheckNowArgs {
    /// Label of the virtual service
    service: String,
    /// Label of the real server
    #[arg(value_name = "REAL")]
    real_server: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Checks a real server at once; the outcome counts like any other. Exit code 1 if it failed.
pub fn run(args: &CheckNowArgs, context: &Context) -> Done {
    let server = Server { service: args.service.clone(), real_server: args.real_server.clone() };
    let raw = context.client()?.ask(Command::CheckNow(server))?;
    let checked: Checked = decode(&raw)?;
    if args.json {
        ui::print(&format!("{raw}\n"))?;
    } else {
        let Checked { service, real_server, check, health } = &checked;
        let result = context.paint.apply(ui::style_of(&check.result), &check.result);
        let (phase, detail) = (&check.phase, ui::printable(&check.detail));
        let ms = check.duration_ms;
        ui::print(&format!(
            "{service} / {real_server}: {result} at {phase}: {detail} ({ms:.1} ms); health: {health}\n"
        ))?;
    }
    Ok(if checked.check.result == "fail" { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
