//! What commands print: plain text, colours, tables, numbers for people.

mod numbers;
mod table;

pub use numbers::{age, bytes, count, rate};
pub use table::{Cell, Table};

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};

use crate::cli::Color;

/// Good.
pub const GREEN: Style = AnsiColor::Green.on_default();
/// Worth a look.
pub const YELLOW: Style = AnsiColor::Yellow.on_default();
/// Bad.
pub const RED: Style = AnsiColor::Red.on_default().bold();
/// Headings.
pub const BOLD: Style = Style::new().bold();
/// Less important.
pub const DIM: Style = Style::new().dimmed();

/// Colours text, or does not.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    enabled: bool,
}

impl Paint {
    /// For standard output, by `--color`.
    pub fn stdout(color: Color) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            enabled: match color {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => io::stdout().is_terminal() && !set("NO_COLOR") && !dumb,
            },
        }
    }

    /// Without colours.
    #[cfg(test)]
    pub const fn plain() -> Self {
        Self { enabled: false }
    }

    /// With colours.
    #[cfg(test)]
    pub const fn colourful() -> Self {
        Self { enabled: true }
    }

    /// The text in this style.
    pub fn apply(self, style: Style, text: &str) -> String {
        if self.enabled && style != Style::new() && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

/// Writes to standard output at once. Unlike `print!` it gives a closed pipe back as an error,
/// which [`crate::cmd::Failure::report`] takes for success.
///
/// # Errors
/// Standard output is closed, or its disk is full.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Labels and details come from configuration files and from other machines: none of it may move
/// the cursor.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The style of a service's state, a server's health, admin state or place in rotation.
pub fn style_of(word: &str) -> Style {
    match word {
        "green" | "up" | "in_rotation" | "pass" | "OK" => GREEN,
        "yellow" | "falling" | "rising" | "draining" | "drain" | "busy" | "WARN" => YELLOW,
        "red" | "down" | "halt" | "fail" | "FAIL" => RED,
        "out" => BOLD,
        "unknown" => DIM,
        _ => Style::new(),
    }
}
