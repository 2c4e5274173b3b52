//! `medlb status`, also as a monitoring plugin.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::ui::{self, BOLD, Cell, DIM, Paint, Table};
use super::{Context, Done, Failure};
use crate::api::model::{RealServer, Service, Status};
use crate::api::protocol::Command;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// One line and an exit code for monitoring: 0 green, 1 yellow, 2 red, 3 unknown
    #[arg(long, conflicts_with = "json")]
    check: bool,
    /// Only this virtual service
    #[arg(long, value_name = "LABEL", conflicts_with = "json")]
    service: Option<String>,
}

/// Shows services and real servers.
pub fn run(args: &StatusArgs, context: &Context) -> Done {
    if args.check {
        let (line, code) = match fetch(args, context) {
            Ok(status) => check_line(&status),
            Err(failure) => (format!("MEDLB UNKNOWN - {}", first_line(&failure)), 3),
        };
        // Whoever reads no more still wants the exit code.
        ui::print(&format!("{line}\n")).ok();
        return Ok(ExitCode::from(code));
    }
    if args.json {
        let raw = context.client()?.ask(Command::Status)?;
        ui::print(&format!("{raw}\n"))?;
    } else {
        ui::print(&text(&fetch(args, context)?, context.paint, SystemTime::now()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn fetch(args: &StatusArgs, context: &Context) -> Result<Status, Failure> {
    let mut status: Status = context.client()?.get(Command::Status)?;
    if let Some(label) = &args.service {
        let labels: Vec<_> = status.services.iter().map(|s| s.label.as_str()).collect();
        if !labels.contains(&label.as_str()) {
            let message = crate::api::names::unknown("virtual service", label, &labels);
            return Err(anyhow::Error::msg(message).into());
        }
        status.services.retain(|service| service.label == *label);
    }
    Ok(status)
}

fn first_line(failure: &Failure) -> String {
    failure.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The answer of a monitoring plugin: text, performance data and exit code.
fn check_line(status: &Status) -> (String, u8) {
    let of = |state: &str| status.services.iter().filter(|s| s.state == state).collect::<Vec<_>>();
    let (green, yellow, red) = (of("green"), of("yellow"), of("red"));
    let (word, code) = match (red.is_empty(), yellow.is_empty()) {
        (false, _) => ("CRITICAL", 2),
        (true, false) => ("WARNING", 1),
        (true, true) => ("OK", 0),
    };
    let trouble: Vec<String> = red.iter().chain(&yellow).map(|service| trouble(service)).collect();
    let total = status.services.len();
    let what =
        if trouble.is_empty() { format!("{total} services green") } else { trouble.join("; ") };
    let connections: u64 = status.services.iter().map(|s| s.active_connections).sum();
    // `|` begins the performance data, so it must not occur before.
    let line = format!(
        "MEDLB {word} - {} | green={} yellow={} red={} connections={connections}",
        ui::printable(&what).replace('|', "/"),
        green.len(),
        yellow.len(),
        red.len(),
    );
    (line, code)
}

fn trouble(service: &Service) -> String {
    let out: Vec<String> = service
        .real_servers
        .iter()
        .filter(|real| real.effective != "in_rotation")
        .map(|real| format!("{} {}", real.label, why(real)))
        .collect();
    let fallback = if service.using_fallback { ", using the fallback server" } else { "" };
    format!("{} {}{fallback} ({})", service.label, service.state, out.join(", "))
}

/// Why a server is not in rotation, in a word.
fn why(real: &RealServer) -> &str {
    match (real.admin.as_str(), real.health.as_str()) {
        ("online", health) if health != "up" => health,
        ("online", _) => &real.effective,
        (admin, _) => admin,
    }
}

/// The table for people.
fn text(status: &Status, paint: Paint, now: SystemTime) -> String {
    let interfaces: Vec<_> =
        status.interfaces.iter().map(|i| format!("{} ({})", i.name, i.xdp_mode)).collect();
    let mut out = format!(
        "medlb {}, pid {}, up {}, attached to {}\n",
        status.version,
        status.pid,
        ui::age(Duration::from_secs(status.uptime_s)),
        interfaces.join(", "),
    );
    for note in &status.notes {
        let note = format!("note: {}", ui::printable(note));
        out.push_str(&format!("{}\n", paint.apply(ui::YELLOW, &note)));
    }
    if status.services.is_empty() {
        out.push_str("no services are configured\n");
    }
    for service in &status.services {
        out.push('\n');
        out.push_str(&heading(service, paint));
        out.push_str(&servers(service, paint, now));
    }
    out
}

fn heading(service: &Service, paint: Paint) -> String {
    let state = paint.apply(ui::style_of(&service.state), &service.state);
    let label = paint.apply(BOLD, &ui::printable(&service.label));
    let address = match service.address.contains(':') {
        true => format!("[{}]", service.address),
        false => service.address.clone(),
    };
    let fallback = if service.using_fallback {
        paint.apply(ui::YELLOW, ", using the fallback server")
    } else {
        String::new()
    };
    format!(
        "{label}  {state}  {address} {} port {}  {} {}  {} connections{fallback}\n",
        service.protocol,
        service.ports,
        service.forwarding_method,
        service.scheduler,
        ui::count(service.active_connections),
    )
}

fn servers(service: &Service, paint: Paint, now: SystemTime) -> String {
    let mut table = Table::new(&[
        "REAL SERVER",
        "ADDRESS",
        ">WEIGHT",
        "HEALTH",
        "ADMIN",
        "ROTATION",
        ">CONNS",
        ">SINCE",
        "LAST CHECK",
    ])
    .indented(2);
    for real in &service.real_servers {
        let address = match real.port {
            Some(port) if real.address.contains(':') => format!("[{}]:{port}", real.address),
            Some(port) => format!("{}:{port}", real.address),
            None => real.address.clone(),
        };
        let health = match real.health_count {
            0 => real.health.clone(),
            n => format!("{} {n}", real.health),
        };
        table.row([
            real.label.as_str().into(),
            address.into(),
            real.weight.to_string().into(),
            Cell::styled(health, ui::style_of(&real.health)),
            Cell::word(&real.admin),
            Cell::word(&real.effective),
            ui::count(real.active_connections).into(),
            real.changed_at.as_deref().map_or_else(|| "-".into(), |at| since(at, now)).into(),
            last_check(real),
        ]);
    }
    table.render(paint)
}

fn last_check(real: &RealServer) -> Cell {
    if let Some(problem) = &real.path_problem {
        return Cell::styled(problem.as_str(), ui::RED);
    }
    match &real.last_check {
        None => Cell::styled("not checked yet", DIM),
        Some(check) => {
            let text = format!("{}: {} ({:.1} ms)", check.phase, check.detail, check.duration_ms);
            let style = if check.result == "pass" { DIM } else { ui::style_of(&check.result) };
            Cell::styled(text, style)
        }
    }
}

/// Time since an RFC 3339 time, for people.
fn since(at: &str, now: SystemTime) -> String {
    humantime::parse_rfc3339(at)
        .ok()
        .and_then(|at| now.duration_since(at).ok())
        .map_or_else(|| at.to_owned(), |span| ui::age(Duration::from_secs(span.as_secs())))
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
