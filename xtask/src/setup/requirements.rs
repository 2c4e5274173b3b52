//! What is needed: a fixed list, and `tests/peers.txt` (lines `apt: a b` and `pip: x y`), the
//! programs that tests talk to.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Network namespaces and links; a C compiler for Rust's linking and bpf-linker's build; real DICOM
/// software for the demo.
const DEBIAN: &[&str] =
    &["iproute2", "ethtool", "util-linux", "build-essential", "dcmtk", "python3-venv"];
/// pydicom's wheel carries small real CT and MR files.
const PYTHON: &[&str] = &["pydicom"];

/// Packages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// Debian packages.
    pub debian: Vec<String>,
    /// Python packages, for the virtual environment.
    pub python: Vec<String>,
}

impl Requirements {
    /// The fixed list and the peers' file.
    ///
    /// # Errors
    /// `tests/peers.txt` has a line that is neither.
    pub fn read() -> Result<Self> {
        let path = workspace::root().join("tests/peers.txt");
        let text = if path.exists() {
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?
        } else {
            String::new()
        };
        let mut all = Self::parse(&text).with_context(|| path.display().to_string())?;
        all.debian.extend(DEBIAN.iter().map(|name| (*name).into()));
        all.python.extend(PYTHON.iter().map(|name| (*name).into()));
        for list in [&mut all.debian, &mut all.python] {
            list.sort();
            list.dedup();
        }
        Ok(all)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut all = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let list = match line.split_once(':') {
                _ if line.is_empty() => continue,
                Some(("apt", names)) => (&mut all.debian, names),
                Some(("pip", names)) => (&mut all.python, names),
                _ => bail!("line {}: neither `apt: …` nor `pip: …`: {line}", number + 1),
            };
            list.0.extend(list.1.split_whitespace().map(Into::into));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_line_and_comments_are_read() {
        let all = Requirements::parse("# peers\napt: a b # two\n\npip: x\napt: c\n").unwrap();
        assert_eq!(all.debian, ["a", "b", "c"]);
        assert_eq!(all.python, ["x"]);
    }

    #[test]
    fn an_unknown_line_is_refused_with_its_number() {
        let error = Requirements::parse("apt: a\nnpm: b\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
