//! `medlb explain`.

use std::process::ExitCode;

use clap::Args;

use super::ui::{self, BOLD, Cell, Paint, Table};
use super::{Context, Done};
use crate::api::client::decode;
use crate::api::model::Explanation;
use crate::api::protocol::{Command, Server};

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Label of the virtual service
    service: String,
    /// Label of the real server
    #[arg(value_name = "REAL")]
    real_server: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Tells everything about a real server.
pub fn run(args: &ExplainArgs, context: &Context) -> Done {
    let server = Server { service: args.service.clone(), real_server: args.real_server.clone() };
    let raw = context.client()?.ask(Command::Explain(server))?;
    if args.json {
        ui::print(&format!("{raw}\n"))?;
    } else {
        ui::print(&text(&decode(&raw)?, context.paint))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(e: &Explanation, paint: Paint) -> String {
    let real = &e.real_server;
    let name = paint.apply(BOLD, &ui::printable(&format!("{} / {}", e.service, real.label)));
    let word = |word: &str| paint.apply(ui::style_of(word), word);
    let mut out = format!("{name}: {}\n", word(&real.effective));
    for reason in &e.reasons {
        out.push_str(&format!("  - {}\n", ui::printable(reason)));
    }
    let mut field = |name: &str, value: String| out.push_str(&format!("{name:<13}{value}\n"));
    let port = real.port.map_or_else(String::new, |port| format!(" port {port}"));
    field("address", format!("{}{port}, weight {}", real.address, real.weight));
    let since =
        |at: &Option<String>| at.as_ref().map_or(String::new(), |at| format!(", since {at}"));
    let count =
        if real.health_count > 0 { format!(" {}", real.health_count) } else { String::new() };
    field("health", format!("{}{count}{}", word(&real.health), since(&real.changed_at)));
    field("admin", format!("{}{}", word(&real.admin), since(&e.admin_since)));
    field(
        "connections",
        format!(
            "{} now, {} in all",
            ui::count(real.active_connections),
            ui::count(e.traffic.connections_total)
        ),
    );
    if e.maximum_connections > 0 {
        let least = match e.minimum_connections {
            0 => String::new(),
            least => format!("; then none before it has fallen to {}", ui::count(least.into())),
        };
        field("limit", format!("{} connections{least}", ui::count(e.maximum_connections.into())));
    }
    if let Some(entries) = e.persistence_entries {
        field("persistence", format!("{} clients", ui::count(entries)));
    }
    field(
        "traffic",
        format!(
            "in {} packets, {}; out {} packets, {}",
            ui::count(e.traffic.packets_in),
            ui::bytes(e.traffic.bytes_in),
            ui::count(e.traffic.packets_out),
            ui::bytes(e.traffic.bytes_out),
        ),
    );
    field("path", path(e));
    field("check", ui::printable(&e.check));
    field("next check", e.next_check.clone().unwrap_or_else(|| "-".into()));
    if !e.history.is_empty() {
        out.push_str(&format!("\n{}", history(e, paint)));
    }
    out
}

fn path(e: &Explanation) -> String {
    let hop = e.path.as_ref().map(|hop| {
        let mac = hop.mac.as_deref().unwrap_or("not resolved");
        let link = if hop.on_link { "on a connected subnet" } else { "through a router" };
        format!("{}, MAC address {mac}, {link}", hop.interface)
    });
    match (hop, &e.real_server.path_problem) {
        (Some(hop), None) => hop,
        (Some(hop), Some(problem)) => format!("{hop}; {}", ui::printable(problem)),
        (None, Some(problem)) => ui::printable(problem),
        (None, None) => "not known yet".into(),
    }
}

fn history(e: &Explanation, paint: Paint) -> String {
    let mut table = Table::new(&["CHECKED AT", "RESULT", "PHASE", ">TOOK", "DETAIL"]);
    for check in &e.history {
        table.row([
            check.at.as_str().into(),
            Cell::word(&check.result),
            check.phase.as_str().into(),
            format!("{:.1} ms", check.duration_ms).into(),
            check.detail.as_str().into(),
        ]);
    }
    table.render(paint)
}
