//! What is wrong with a configuration, and where. [`At`] is a place in the file while it is being
//! walked; [`Report`] collects what is found there.

use std::fmt;

use serde::Serialize;

use super::lines::Lines;

/// One thing that is wrong, or that looks wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where, as in `virtual_services[2].real_servers[0].weight`; empty: the whole file.
    pub path: String,
    /// Line in the file, from 1, where it can be known.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem with no line.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), line: None, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All errors of a file, sorted by line; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct ConfigErrors {
    /// The errors.
    pub errors: Vec<Problem>,
    /// What looked wrong besides.
    pub warnings: Vec<Problem>,
}

impl ConfigErrors {
    /// A single error about the whole file or one line of it.
    pub fn single(line: Option<usize>, message: impl Into<String>) -> Self {
        let error = Problem { path: String::new(), line, message: message.into() };
        Self { errors: vec![error], warnings: Vec::new() }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// A place in the file: a chain of keys and indices up to the root.
#[derive(Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

/// One link of the chain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> At<'a> {
    /// The whole file.
    pub const ROOT: At<'static> = At { parent: None, step: Step::Root };

    /// The value of `key` in this mapping.
    pub fn key(&'a self, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Key(key) }
    }

    /// Entry `index` of this list.
    pub fn index(&'a self, index: usize) -> At<'a> {
        At { parent: Some(self), step: Step::Index(index) }
    }

    /// The steps from the root to here.
    pub(super) fn steps(&self) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        let mut at = *self;
        loop {
            match at.step {
                Step::Root => break,
                step => steps.push(step),
            }
            match at.parent {
                Some(parent) => at = *parent,
                None => break,
            }
        }
        steps.reverse();
        steps
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.steps().into_iter().enumerate() {
            match step {
                Step::Root => {}
                Step::Key(key) if position == 0 => write!(f, "{}", printable(key))?,
                Step::Key(key) => write!(f, ".{}", printable(key))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Operators' text as part of a message: control characters escaped, cut at 60 characters.
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == 60 {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// More errors than this are counted, not listed: nobody reads them.
const LISTED: usize = 1000;

/// Collects problems and puts the lines to them.
pub struct Report {
    lines: Lines,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    unlisted: usize,
}

impl Report {
    /// An empty report about the file with these lines.
    pub fn new(lines: Lines) -> Self {
        Self { lines, errors: Vec::new(), warnings: Vec::new(), unlisted: 0 }
    }

    /// The file cannot be used.
    pub fn error(&mut self, at: &At<'_>, message: impl Into<String>) {
        if self.errors.len() == LISTED {
            self.unlisted += 1;
            return;
        }
        let line = self.lines.of(&at.steps());
        self.errors.push(Problem { path: at.to_string(), line, message: message.into() });
    }

    /// The file can be used, but perhaps the operator meant something else.
    pub fn warn(&mut self, at: &At<'_>, message: impl Into<String>) {
        if self.warnings.len() < LISTED {
            let line = self.lines.of(&at.steps());
            self.warnings.push(Problem { path: at.to_string(), line, message: message.into() });
        }
    }

    /// Whether nothing was wrong so far.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// The warnings and the lines, or all errors.
    ///
    /// # Errors
    /// When there was at least one error.
    pub fn finish(mut self) -> Result<(Vec<Problem>, Lines), ConfigErrors> {
        // Stable: problems of one line stay in the order they were found in.
        self.errors.sort_by_key(|problem| problem.line);
        self.warnings.sort_by_key(|problem| problem.line);
        if self.unlisted > 0 {
            let message = format!("and {} more errors", self.unlisted);
            self.errors.push(Problem::new("", message));
        }
        if self.errors.is_empty() {
            Ok((self.warnings, self.lines))
        } else {
            Err(ConfigErrors { errors: self.errors, warnings: self.warnings })
        }
    }
}
