//! What operators said of real servers: online, drain, halt. Kept in a file, so that a restart does
//! not put a server back that someone is working on. The configuration file wins when it changes:
//! a server whose entry differs from what it was when the operator spoke is online again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::config::model::{Config, RealServer};

/// What an operator wants of a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// In rotation when it is healthy.
    #[default]
    Online,
    /// No new connections; established ones go on.
    Drain,
    /// Out at once; established connections follow `on_down`.
    Halt,
}

impl AdminState {
    /// As `status` shows it.
    pub const fn word(self) -> &'static str {
        match self {
            AdminState::Online => "online",
            AdminState::Drain => "drain",
            AdminState::Halt => "halt",
        }
    }
}

/// Service label and real-server label.
pub type ServerLabel = (String, String);

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Drain or halt: online is the absence of an entry.
    pub state: AdminState,
    /// When the operator said so.
    pub since: SystemTime,
    /// The server's entry in the configuration file at that time.
    configured: String,
}

/// All decisions, and the file that keeps them.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    entries: HashMap<ServerLabel, Entry>,
}

/// Shape of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    version: u32,
    servers: Vec<SavedEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedEntry {
    service: String,
    real_server: String,
    admin: AdminState,
    since: String,
    configured: String,
}

const VERSION: u32 = 1;

impl Store {
    /// Reads `admin.json` in `state_dir`, which is made if it is missing. A file that cannot be
    /// understood is set aside as `admin.json.bad`, with a warning, and all servers are online.
    ///
    /// # Errors
    /// The directory or the file cannot be read.
    pub fn open(state_dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(state_dir)
            .with_context(|| format!("cannot make global.state_dir {}", state_dir.display()))?;
        let path = state_dir.join("admin.json");
        let entries = match fs::read(&path) {
            Ok(bytes) => match decode(&bytes) {
                Ok(entries) => entries,
                Err(error) => {
                    let bad = path.with_extension("json.bad");
                    warn!(file = %path.display(), %error, kept_as = %bad.display(),
                        "the administrative states cannot be read: all real servers are online");
                    fs::rename(&path, &bad)
                        .with_context(|| format!("cannot rename {}", path.display()))?;
                    HashMap::new()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
        };
        Ok(Self { path, entries })
    }

    /// What the operator wants of a server.
    pub fn state(&self, service: &str, real: &str) -> AdminState {
        self.entry(service, real).map_or(AdminState::Online, |entry| entry.state)
    }

    /// The decision about a server, unless it is online.
    pub fn entry(&self, service: &str, real: &str) -> Option<&Entry> {
        self.entries.get(&(service.to_owned(), real.to_owned()))
    }

    /// Every server that is not online.
    pub fn states(&self) -> HashMap<ServerLabel, AdminState> {
        self.entries.iter().map(|(label, entry)| (label.clone(), entry.state)).collect()
    }

    /// Records a decision and writes the file. Gives the state before.
    ///
    /// # Errors
    /// The file cannot be written: nothing has changed then.
    pub fn set(
        &mut self,
        service: &str,
        real: &RealServer,
        state: AdminState,
        now: SystemTime,
    ) -> anyhow::Result<AdminState> {
        let label = (service.to_owned(), real.label.clone());
        let before = self.state(service, &real.label);
        if before == state {
            return Ok(before);
        }
        let mut entries = self.entries.clone();
        match state {
            AdminState::Online => entries.remove(&label),
            _ => entries.insert(label, Entry { state, since: now, configured: configured(real) }),
        };
        save(&self.path, &entries)?;
        self.entries = entries;
        Ok(before)
    }

    /// Forgets decisions about servers that the configuration has changed or taken away since, and
    /// gives their labels.
    ///
    /// # Errors
    /// The file cannot be written: nothing has changed then.
    pub fn follow(&mut self, config: &Config) -> anyhow::Result<Vec<ServerLabel>> {
        let mut servers = HashMap::new();
        for service in &config.services {
            for real in &service.real_servers {
                servers.insert((service.label.as_str(), real.label.as_str()), configured(real));
            }
        }
        let (kept, gone): (HashMap<_, _>, HashMap<_, _>) =
            self.entries.clone().into_iter().partition(|((service, real), entry)| {
                servers.get(&(service.as_str(), real.as_str())) == Some(&entry.configured)
            });
        if !gone.is_empty() {
            save(&self.path, &kept)?;
            self.entries = kept;
        }
        for ((service, real), entry) in &gone {
            info!(%service, %real, was = entry.state.word(),
                "the configuration of this real server has changed: it is online again");
        }
        Ok(gone.into_keys().collect())
    }
}

/// A server's entry in the file as one line. Health checks are left out: to mend a check is no
/// reason to put a drained server back.
fn configured(real: &RealServer) -> String {
    let mut line = real.address.to_string();
    let port = real.port.map_or_else(|| "-".to_owned(), |port| port.to_string());
    write!(
        line,
        " port={port} weight={} minimum={} maximum={} backup={} slow_start={}ms",
        real.weight,
        real.minimum_connections,
        real.maximum_connections,
        real.backup,
        real.slow_start.as_millis()
    )
    .expect("writing to a String cannot fail");
    line
}

fn decode(bytes: &[u8]) -> anyhow::Result<HashMap<ServerLabel, Entry>> {
    let saved: Saved = serde_json::from_slice(bytes)?;
    anyhow::ensure!(saved.version == VERSION, "it is of version {}", saved.version);
    saved
        .servers
        .into_iter()
        .filter(|server| server.admin != AdminState::Online)
        .map(|server| {
            let since = humantime::parse_rfc3339(&server.since).context("a bad time")?;
            let entry = Entry { state: server.admin, since, configured: server.configured };
            Ok(((server.service, server.real_server), entry))
        })
        .collect()
}

/// Writes beside the file and renames, so that a crash leaves the old file or the new one.
fn save(path: &Path, entries: &HashMap<ServerLabel, Entry>) -> anyhow::Result<()> {
    let mut servers: Vec<SavedEntry> = entries
        .iter()
        .map(|((service, real), entry)| SavedEntry {
            service: service.clone(),
            real_server: real.clone(),
            admin: entry.state,
            since: humantime::format_rfc3339_seconds(entry.since).to_string(),
            configured: entry.configured.clone(),
        })
        .collect();
    servers.sort_by(|a, b| (&a.service, &a.real_server).cmp(&(&b.service, &b.real_server)));
    let mut bytes = serde_json::to_vec_pretty(&Saved { version: VERSION, servers })?;
    bytes.push(b'\n');
    write_atomically(path, &bytes)
        .with_context(|| format!("cannot write {}: nothing was changed", path.display()))
}

fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("json.new");
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
