//! `medlb stats`: counters once, or with `--watch` again and again with rates.

mod tables;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Context, Done, Failure, ui};
use crate::api::client::decode;
use crate::api::protocol::Command;

/// Arguments of `stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Print JSON; with --watch one object a line
    #[arg(long)]
    json: bool,
    /// Refresh in place with rates per second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Time between refreshes, such as 500ms or 2s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| error.to_string()),
    };
    let interval = parsed.map_err(|error| format!("{error}: write 500ms, 2s or 1m"))?;
    let sensible = Duration::from_millis(100)..=Duration::from_secs(3600);
    if sensible.contains(&interval) { Ok(interval) } else { Err("use 100ms to 1h".into()) }
}

/// Shows counters.
pub fn run(args: &StatsArgs, context: &Context) -> Done {
    if args.watch {
        return watch::run(args, context);
    }
    let raw = context.client()?.ask(Command::Stats)?;
    if args.json {
        ui::print(&format!("{raw}\n"))?;
    } else {
        let stats = decode(&raw).map_err(Failure::from)?;
        ui::print(&tables::totals(&stats, context.paint))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_durations_or_seconds_within_reason() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "1ms", "2h", "nan", "inf", "soon", ""] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
