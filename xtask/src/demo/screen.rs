//! What the demo prints: colours on a terminal only, and only when NO_COLOR is not set.

use std::io::{IsTerminal as _, stdout};

/// Where it goes.
#[derive(Debug)]
pub struct Screen {
    colours: bool,
}

const BOLD: &str = "1";
const GREEN: &str = "32";
const DIM: &str = "2";

impl Screen {
    /// Standard output.
    pub fn new() -> Self {
        Self { colours: stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    /// Whether programs that are started for their output should use colours.
    pub fn colours(&self) -> bool {
        self.colours
    }

    /// A line that stands out.
    pub fn heading(&self, text: &str) {
        println!("\n{}", self.paint(BOLD, text));
    }

    /// A plain line.
    pub fn line(&self, text: &str) {
        println!("{text}");
    }

    /// The start of a mode.
    pub fn chapter(&self, name: &str, words: &str) {
        println!("\n{}  {}", self.paint(BOLD, &format!("━━ {name}")), self.paint(DIM, words));
    }

    /// Something that was observed.
    pub fn observed(&self, what: &str, detail: &str) {
        println!("  {} {what:<46} {}", self.paint(GREEN, "✓"), self.paint(DIM, detail));
    }

    /// What another program said, indented, under the command that was run.
    pub fn quote(&self, command: &str, text: &str) {
        println!("\n  {}", self.paint(BOLD, &format!("$ {command}")));
        for line in text.trim_end().lines() {
            println!("  {line}");
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
