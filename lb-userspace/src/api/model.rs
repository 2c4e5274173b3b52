//! What the daemon says of itself. `medlb … --json` prints these as they are: names here are an
//! interface. Times are RFC 3339 in UTC.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `medlb status --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// SHA-256 of the configuration in force.
    pub config_hash: String,
    /// Where that configuration came from.
    pub config_path: String,
    /// Milliseconds since its event loop was last seen turning.
    pub heartbeat_age_ms: u64,
    /// Where it is attached.
    pub interfaces: Vec<Interface>,
    /// Enabled services in file order.
    pub services: Vec<Service>,
    /// What an operator should know: a reload that failed, an applied state that lags.
    pub notes: Vec<String>,
}

/// An attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name of the device.
    pub name: String,
    /// `native` or `generic`.
    pub xdp_mode: String,
}

/// A service in [`Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its label.
    pub label: String,
    /// The VIP.
    pub address: String,
    /// As in the file.
    pub ports: String,
    /// `tcp`, `udp` or `tcp+udp`.
    pub protocol: String,
    /// `dr`, `nat` or `snat`.
    pub forwarding_method: String,
    /// `wlc`, …
    pub scheduler: String,
    /// `green` (all servers in rotation), `yellow` (some), `red` (none).
    pub state: String,
    /// Connections now.
    pub active_connections: u64,
    /// New connections go to the fallback server.
    pub using_fallback: bool,
    /// In file order.
    pub real_servers: Vec<RealServer>,
}

/// A real server in [`Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RealServer {
    /// Its label.
    pub label: String,
    /// The RIP.
    pub address: String,
    /// Port translation, if any.
    pub port: Option<u16>,
    /// As in the file.
    pub weight: u16,
    /// `unknown`, `up`, `falling`, `down` or `rising`.
    pub health: String,
    /// Outcomes in a row that contradict `health`: the n of falling n and rising n.
    pub health_count: u32,
    /// `online`, `drain` or `halt`.
    pub admin: String,
    /// `in_rotation`, `draining` or `out`.
    pub effective: String,
    /// Connections now.
    pub active_connections: u64,
    /// None before the first check has ended.
    pub last_check: Option<LastCheck>,
    /// When health last changed between up and down.
    pub changed_at: Option<String>,
    /// Why packets cannot be sent to it, in words; none: they can.
    pub path_problem: Option<String>,
}

/// Outcome of a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastCheck {
    /// When it ended.
    pub at: String,
    /// `pass`, `busy` or `fail`.
    pub result: String,
    /// How far it got.
    pub phase: String,
    /// In the protocol's words.
    pub detail: String,
    /// How long it took.
    pub duration_ms: f64,
}

/// `medlb stats --json`. Counters count since the data plane was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Enabled services in file order.
    pub services: Vec<ServiceStats>,
    /// Packets by verdict, `transmitted` included.
    pub verdicts: BTreeMap<String, u64>,
    /// Entries and capacity of each table.
    pub tables: BTreeMap<String, TableStats>,
}

/// A service in [`Stats`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    /// Its label.
    pub label: String,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Packets that were not transmitted, by verdict.
    pub drops: BTreeMap<String, u64>,
    /// In file order, then the fallback server if there is one.
    pub real_servers: Vec<RealServerStats>,
}

/// A real server in [`Stats`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServerStats {
    /// Its label.
    pub label: String,
    /// Its traffic.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// `in` is towards the real server, `out` towards the client (0 in DR).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets towards the real server.
    pub packets_in: u64,
    /// Bytes towards the real server, IP headers included.
    pub bytes_in: u64,
    /// Packets towards clients.
    pub packets_out: u64,
    /// Bytes towards clients.
    pub bytes_out: u64,
    /// Connections begun.
    pub connections_total: u64,
    /// Connections now.
    pub active_connections: u64,
    /// TCP connections whose client has not answered yet.
    #[serde(default)]
    pub half_open_connections: u64,
}

/// A table in [`Stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStats {
    /// Entries at the last sweep.
    pub entries: u64,
    /// Entries that it can hold.
    pub capacity: u64,
}

/// `medlb connections --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// At most as many as were asked for.
    pub connections: Vec<Connection>,
    /// Whether there were more.
    pub truncated: bool,
}

/// A connection through the load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Label of its service; empty when the service was taken away.
    pub service: String,
    /// Label of its real server.
    pub real_server: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `address:port`.
    pub client: String,
    /// `address:port`.
    pub vip: String,
    /// Where it goes: the real server's `address:port`.
    pub server: String,
    /// `opening`, `established`, `client closed`, …; `active` for UDP.
    pub state: String,
    /// Seconds since it began.
    pub age_s: u64,
    /// Seconds since a packet was last seen.
    pub idle_s: u64,
}

/// `medlb persistence --json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistenceList {
    /// At most as many as were asked for.
    pub persistence: Vec<PersistenceEntry>,
    /// Whether there were more.
    pub truncated: bool,
}

/// Where a client's new connections go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistenceEntry {
    /// Label of its service.
    pub service: String,
    /// Label of its real server.
    pub real_server: String,
    /// Client address, or network: `10.1.2.0/24`.
    pub client: String,
    /// Seconds since the client's last new connection.
    pub idle_s: u64,
    /// Seconds until it lapses, if the client opens no new connection.
    pub expires_in_s: u64,
}

/// Answer to `drain`, `halt` and `online`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminChanged {
    /// Label of the service.
    pub service: String,
    /// Label of the real server.
    pub real_server: String,
    /// Before.
    pub from: String,
    /// Now.
    pub to: String,
    /// Connections now.
    pub active_connections: u64,
}

/// Answer to `reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// SHA-256 of the configuration in force.
    pub config_hash: String,
    /// Whether anything differs.
    pub changed: bool,
    /// What was done, a line each.
    pub changes: Vec<String>,
    /// What the operator should look at.
    pub warnings: Vec<String>,
}

/// Answer to `check-now`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// Label of the service.
    pub service: String,
    /// Label of the real server.
    pub real_server: String,
    /// The outcome.
    pub check: LastCheck,
    /// Health after it.
    pub health: String,
}

/// Answer to `explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The service.
    pub service: String,
    /// As in `status`.
    pub real_server: RealServer,
    /// Why it is in rotation or not, in words, the decisive reason first.
    pub reasons: Vec<String>,
    /// How it is checked, in words.
    pub check: String,
    /// When the next check starts.
    pub next_check: Option<String>,
    /// The last outcomes, newest first.
    pub history: Vec<LastCheck>,
    /// Since when the admin state holds; none: it never changed.
    pub admin_since: Option<String>,
    /// Next hop.
    pub path: Option<Hop>,
    /// Its counters.
    pub traffic: Traffic,
    /// So many connections take it out; 0: no limit.
    #[serde(default)]
    pub maximum_connections: u32,
    /// Until it has fallen to so many.
    #[serde(default)]
    pub minimum_connections: u32,
    /// Persistence entries that point at it; none: the service has no persistence.
    #[serde(default)]
    pub persistence_entries: Option<u64>,
}

/// The next hop towards a real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Egress interface.
    pub interface: String,
    /// MAC address of the next hop, if it answers.
    pub mac: Option<String>,
    /// On a connected subnet.
    pub on_link: bool,
}

/// One thing that `doctor` looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was looked at: `kernel`, `eth0: xdp`, …
    pub subject: String,
    /// What was found.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// Level of a [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// As it should be.
    #[serde(rename = "OK")]
    Ok,
    /// Works, but not as well as it could, or not for everyone.
    #[serde(rename = "WARN")]
    Warn,
    /// Does not work.
    #[serde(rename = "FAIL")]
    Fail,
}

impl Level {
    /// As it is shown.
    pub const fn word(self) -> &'static str {
        match self {
            Level::Ok => "OK",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        }
    }
}

impl Finding {
    /// Nothing to do.
    pub fn ok(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject: subject.into(), message: message.into(), advice: None }
    }

    /// Something to do.
    pub fn bad(
        level: Level,
        subject: impl Into<String>,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (subject, message) = (subject.into(), message.into());
        Self { level, subject, message, advice: Some(advice.into()) }
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
