//! `medlb connections`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::ui::{self, Paint, Table};
use super::{Context, Done};
use crate::api::client::decode;
use crate::api::model::Connections;
use crate::api::protocol::{Command, Filter};

/// Arguments of `connections`.
#[derive(Debug, Args)]
pub struct ConnectionsArgs {
    #[command(flatten)]
    filter: FilterArgs,
}

/// What both listings take.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only this virtual service
    #[arg(long, value_name = "LABEL")]
    service: Option<String>,
    /// At most so many; 0: all
    #[arg(long, value_name = "N", default_value_t = Filter::DEFAULT_LIMIT)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl FilterArgs {
    /// As the daemon takes it.
    pub fn filter(&self) -> Filter {
        Filter { service: self.service.clone(), limit: Some(self.limit) }
    }
}

/// Lists connections.
pub fn run(args: &ConnectionsArgs, context: &Context) -> Done {
    let raw = context.client()?.ask(Command::Connections(args.filter.filter()))?;
    if args.filter.json {
        ui::print(&format!("{raw}\n"))?;
    } else {
        ui::print(&text(&decode(&raw)?, context.paint))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(list: &Connections, paint: Paint) -> String {
    let mut table =
        Table::new(&["CLIENT", "VIP", "PROTO", "SERVICE", "REAL SERVER", "STATE", ">AGE", ">IDLE"]);
    for c in &list.connections {
        table.row([
            c.client.as_str().into(),
            c.vip.as_str().into(),
            c.protocol.as_str().into(),
            c.service.as_str().into(),
            c.real_server.as_str().into(),
            c.state.as_str().into(),
            ui::age(Duration::from_secs(c.age_s)).into(),
            ui::age(Duration::from_secs(c.idle_s)).into(),
        ]);
    }
    if table.is_empty() {
        return "no connections\n".into();
    }
    let mut out = table.render(paint);
    if list.truncated {
        let shown = list.connections.len();
        out.push_str(&format!("only the first {shown} are shown: --limit N shows more\n"));
    }
    out
}
