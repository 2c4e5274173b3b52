//! Which addresses medlb itself put on interfaces, on disk: a restart, or `teardown` after a crash,
//! must take away those and no others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path as FilePath, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

const FILE: &str = "addresses.json";

/// The file's shape.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Shape {
    /// A boot takes every address away: what another boot added is not ours any more.
    boot_id: String,
    /// Address to the name of its interface.
    added: BTreeMap<IpAddr, String>,
}

/// The record, in memory and on disk.
#[derive(Debug)]
pub struct Record {
    file: PathBuf,
    shape: Shape,
}

impl Record {
    /// Reads the record of a state directory; without a file, or with one of another boot, it is
    /// empty.
    ///
    /// # Errors
    /// The file is there and cannot be read or understood.
    pub fn load(state_dir: &FilePath) -> anyhow::Result<Self> {
        let file = state_dir.join(FILE);
        let boot_id = boot_id();
        let shape: Shape = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| {
                format!(
                    "{} is damaged; take VIPs that medlb added off by hand and delete the file",
                    file.display()
                )
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => Shape::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        let added = if shape.boot_id == boot_id { shape.added } else { BTreeMap::new() };
        Ok(Self { file, shape: Shape { boot_id, added } })
    }

    /// An empty record that will replace the file.
    pub fn empty(state_dir: &FilePath) -> Self {
        let shape = Shape { boot_id: boot_id(), added: BTreeMap::new() };
        Self { file: state_dir.join(FILE), shape }
    }

    /// Address to interface name.
    pub fn added(&self) -> &BTreeMap<IpAddr, String> {
        &self.shape.added
    }

    /// Notes an address, in memory.
    pub fn insert(&mut self, address: IpAddr, interface: String) {
        self.shape.added.insert(address, interface);
    }

    /// Forgets an address, in memory.
    pub fn remove(&mut self, address: IpAddr) {
        self.shape.added.remove(&address);
    }

    /// Writes the file as a whole or not at all.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn save(&self) -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            let directory = self.file.parent().context("the state directory has no name")?;
            fs::create_dir_all(directory)?;
            let new = self.file.with_extension("json.new");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(&self.shape)?)?;
            file.sync_all()?;
            fs::rename(&new, &self.file)?;
            File::open(directory)?.sync_all()?;
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", self.file.display()))
    }

    /// Removes the file.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn erase(&self) -> anyhow::Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.file.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The kernel's name for this boot; empty where it cannot be read, which then matches itself.
fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_boot_claims_nothing() {
        let directory = std::env::temp_dir().join(format!("medlb-record-{}", std::process::id()));
        let vip = IpAddr::from([10, 0, 0, 1]);
        let mut record = Record::load(&directory).unwrap();
        record.insert(vip, "eth0".into());
        record.save().unwrap();
        assert_eq!(Record::load(&directory).unwrap().added()[&vip], "eth0");
        record.shape.boot_id = "another".into();
        record.save().unwrap();
        assert!(Record::load(&directory).unwrap().added().is_empty());
        fs::write(directory.join(FILE), "{").unwrap();
        assert!(Record::load(&directory).unwrap_err().to_string().contains("is damaged"));
        fs::remove_dir_all(&directory).unwrap();
    }
}
