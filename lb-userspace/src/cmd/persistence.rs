//! `medlb persistence`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::connections::FilterArgs;
use super::ui::{self, Paint, Table};
use super::{Context, Done};
use crate::api::client::decode;
use crate::api::model::PersistenceList;
use crate::api::protocol::Command;

/// Arguments of `persistence`.
#[derive(Debug, Args)]
pub struct PersistenceArgs {
    #[command(flatten)]
    filter: FilterArgs,
}

/// Lists persistence entries.
pub fn run(args: &PersistenceArgs, context: &Context) -> Done {
    let raw = context.client()?.ask(Command::Persistence(args.filter.filter()))?;
    if args.filter.json {
        ui::print(&format!("{raw}\n"))?;
    } else {
        ui::print(&text(&decode(&raw)?, context.paint))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(list: &PersistenceList, paint: Paint) -> String {
    let mut table = Table::new(&["CLIENT", "SERVICE", "REAL SERVER", ">IDLE", ">EXPIRES IN"]);
    for entry in &list.persistence {
        table.row([
            entry.client.as_str().into(),
            entry.service.as_str().into(),
            entry.real_server.as_str().into(),
            ui::age(Duration::from_secs(entry.idle_s)).into(),
            ui::age(Duration::from_secs(entry.expires_in_s)).into(),
        ]);
    }
    if table.is_empty() {
        return "no persistence entries\n".into();
    }
    let mut out = table.render(paint);
    if list.truncated {
        let shown = list.persistence.len();
        out.push_str(&format!("only the first {shown} are shown: --limit N shows more\n"));
    }
    out
}
