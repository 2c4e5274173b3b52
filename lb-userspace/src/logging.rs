//! Where log lines go and what they look like.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::cli::{Color, GlobalArgs, LogFormat};

/// Sets up logging to standard error: INFO for the daemon, WARN for the other commands, unless
/// `--log-level` says otherwise. Under systemd the journal keeps the time, so lines carry none.
///
/// # Errors
/// `--log-level` is neither a level nor a filter.
pub fn init(args: &GlobalArgs, daemon: bool) -> anyhow::Result<()> {
    let level = args.log_level.as_deref().unwrap_or(if daemon { "info" } else { "warn" });
    let filter = filter(level)?;
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let ansi = match args.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        }
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(ansi);
    let done = match (args.log_format, journal) {
        (LogFormat::Json, true) => builder.json().flatten_event(true).without_time().try_init(),
        (LogFormat::Json, false) => builder.json().flatten_event(true).try_init(),
        (LogFormat::Text, true) => builder.without_time().try_init(),
        (LogFormat::Text, false) => builder.try_init(),
    };
    done.map_err(|error| anyhow::anyhow!("cannot set up logging: {error}"))
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // A bare word that is no level would be taken for the name of a module and silence the rest.
    let bare = !level.contains(['=', ',', ':', '[']);
    let known = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level));
    anyhow::ensure!(
        !bare || known,
        "--log-level {level:?} is not a level: use one of {}, or a filter such as \
         medlb::health=debug",
        LEVELS.join(", ")
    );
    EnvFilter::try_new(level).with_context(|| format!("--log-level {level:?} is not a filter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_accepted_and_typing_errors_are_not() {
        for good in ["info", "TRACE", "off", "medlb::health=debug", "warn,medlb=debug"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["inof", "", "medlb=loud"] {
            assert!(filter(bad).is_err(), "{bad:?}");
        }
    }
}
