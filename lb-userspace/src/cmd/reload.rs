//! `medlb reload`.

use clap::Args;

use super::{Context, Done, ui};
use crate::api::client::decode;
use crate::api::model::Reloaded;
use crate::api::protocol::Command;

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Makes the daemon read its configuration file again. An invalid file changes nothing: its errors
/// are printed and the exit code is 78.
pub fn run(args: &ReloadArgs, context: &Context) -> Done {
    let raw = context.client()?.ask(Command::Reload)?;
    if args.json {
        ui::print(&format!("{raw}\n"))?;
    } else {
        ui::print(&text(&decode(&raw)?))?;
    }
    Ok(std::process::ExitCode::SUCCESS)
}

fn text(reloaded: &Reloaded) -> String {
    let mut out = String::new();
    for warning in &reloaded.warnings {
        out.push_str(&format!("warning: {warning}\n"));
    }
    if !reloaded.changed {
        out.push_str("nothing has changed\n");
        return out;
    }
    for change in &reloaded.changes {
        out.push_str(&format!("{change}\n"));
    }
    out.push_str("the new configuration is in force\n");
    out
}
