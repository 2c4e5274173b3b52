//! `medlb doctor`: what this host lacks, what the configuration asks of it, and what the running
//! daemon knows of trouble.

mod host;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::ui::{self, Cell, Paint, Table};
use super::{Context, Done, Failure};
use crate::api::model::{Finding, Level};
use crate::api::protocol::Command;
use crate::config::model::Config;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look at this host and this configuration, also without a daemon
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints findings. Exit code 1 if something does not work, 69 if no daemon answers and no
/// configuration was named.
pub fn run(args: &DoctorArgs, context: &Context) -> Done {
    let mut findings = host::findings();
    let mut config = None;
    if let Some(path) = &args.config {
        config = Some(super::run::load(path)?);
    }
    let mut code = 0;
    match context.client().and_then(|mut client| Ok(client.get::<Vec<Finding>>(Command::Doctor)?)) {
        Ok(more) => findings.extend(more),
        Err(failure) => {
            if args.config.is_none() {
                code = failure.code();
            }
            findings.push(without_daemon(&failure, config.is_some()));
            findings.extend(config.as_ref().map(of_config).unwrap_or_default());
        }
    }
    if code == 0 && findings.iter().any(|finding| finding.level == Level::Fail) {
        code = 1;
    }
    if args.json {
        let json = serde_json::to_string(&findings).map_err(anyhow::Error::from)?;
        ui::print(&format!("{json}\n"))?;
    } else {
        ui::print(&text(&findings, context.paint))?;
    }
    Ok(ExitCode::from(code))
}

fn without_daemon(failure: &Failure, has_config: bool) -> Finding {
    let level = if has_config { Level::Warn } else { Level::Fail };
    let advice = "only this host was looked at; a running daemon knows more";
    Finding::bad(level, "daemon", failure.to_string(), advice)
}

/// What the daemon would say of the configuration before it starts.
fn of_config(config: &Config) -> Vec<Finding> {
    crate::daemon::doctor::of_host(config)
}

fn text(findings: &[Finding], paint: Paint) -> String {
    let mut table = Table::new(&["", "WHAT", "FOUND"]);
    for finding in findings {
        let found = finding.message.as_str().into();
        table.row([Cell::word(finding.level.word()), finding.subject.as_str().into(), found]);
        if let Some(advice) = &finding.advice {
            table.row(["".into(), "".into(), format!("-> {advice}").into()]);
        }
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let (ok, warn, fail) = (count(Level::Ok), count(Level::Warn), count(Level::Fail));
    format!("{}\n{ok} fine, {warn} to look at, {fail} broken\n", table.render(paint))
}
