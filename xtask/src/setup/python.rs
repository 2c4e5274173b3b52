//! Python packages, in a virtual environment of this checkout.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{progress, workspace};

/// Installs those of `packages` that were not installed yet.
///
/// # Errors
/// No python3 with venv, or pip fails.
pub fn ensure(packages: &[String]) -> Result<()> {
    let venv = workspace::venv();
    let record = venv.join("medlb-packages");
    let wanted = packages.join("\n");
    let there = fs::read_to_string(&record).unwrap_or_default();
    if there == wanted && venv.join("bin/python3").exists() {
        return Ok(());
    }
    eprintln!("setup: Python packages in target/venv: {}", packages.join(" "));
    if !venv.join("bin/pip").exists() {
        let mut create = Command::new("python3");
        create.args(["-m", "venv"]).arg(&venv);
        progress::step("venv", "python3 -m venv", &mut create)?;
    }
    let mut install = Command::new(venv.join("bin/pip"));
    install.args(["install", "--disable-pip-version-check"]).args(packages);
    progress::step("pip", "pip install", &mut install)?;
    fs::write(&record, wanted).with_context(|| format!("cannot write {}", record.display()))
}
