//! Requests and replies: JSON, one object a line, any number of them over one connection.
//!
//! ```text
//! > {"v":1,"command":"drain","service":"DICOM-Modalities","real_server":"DICOM1"}
//! < {"v":1,"ok":true,"result":{…}}
//! < {"v":1,"ok":false,"error":{"kind":"not_found","message":"…"}}
//! ```

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Version of the protocol. A request without one means this one.
pub const VERSION: u32 = 1;

/// Longest request line in bytes, the newline included.
pub const MAX_REQUEST: usize = 64 * 1024;

/// A request as it is sent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the sender.
    #[serde(default = "current")]
    pub v: u32,
    /// What is asked for.
    #[serde(flatten)]
    pub command: Command,
}

fn current() -> u32 {
    VERSION
}

/// What can be asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Answered by [`super::model::Status`].
    Status,
    /// Answered by [`super::model::Stats`].
    Stats,
    /// Answered by [`super::model::Reloaded`], once the new configuration is in force.
    Reload,
    /// Answered by [`super::model::Connections`].
    Connections(Filter),
    /// Answered by [`super::model::PersistenceList`].
    Persistence(Filter),
    /// Answered by [`super::model::AdminChanged`].
    Drain(Server),
    /// Answered by [`super::model::AdminChanged`].
    Halt(Server),
    /// Answered by [`super::model::AdminChanged`].
    Online(Server),
    /// Answered by [`super::model::Explanation`].
    Explain(Server),
    /// Answered by [`super::model::Checked`], once the check has ended.
    CheckNow(Server),
    /// Answered by a list of [`super::model::Finding`].
    Doctor,
}

/// A real server of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The service's label.
    pub service: String,
    /// The real server's label.
    pub real_server: String,
}

/// Which entries of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Only this service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// At most so many; none: [`Filter::DEFAULT_LIMIT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl Filter {
    /// How many entries a listing has unless asked for otherwise.
    pub const DEFAULT_LIMIT: usize = 1000;

    /// The most entries that one reply carries.
    pub const MAX_LIMIT: usize = 1_000_000;

    /// How many entries to list; 0 in the request means as many as there can be.
    pub fn limit(&self) -> usize {
        match self.limit {
            None => Self::DEFAULT_LIMIT,
            Some(0) => Self::MAX_LIMIT,
            Some(n) => n.min(Self::MAX_LIMIT),
        }
    }
}

/// A reply as it is sent: `result` when `ok`, `error` otherwise.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`] of the daemon.
    pub v: u32,
    /// Whether it was done.
    pub ok: bool,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// What the daemon answers a command with.
pub type Answer = Result<Box<RawValue>, Failure>;

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        match answer {
            Ok(result) => Self { v: VERSION, ok: true, result: Some(result), error: None },
            Err(error) => Self { v: VERSION, ok: false, result: None, error: Some(error) },
        }
    }
}

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub kind: FailureKind,
    /// For people: what is wrong and what to do.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Kinds of [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request is not JSON, not a known command, too long, or of another version.
    BadRequest,
    /// There is no such service or real server.
    NotFound,
    /// The configuration file does not validate; nothing was changed.
    InvalidConfiguration,
    /// The daemon has too many clients, or is stopping.
    Busy,
    /// Anything else.
    Failed,
}

/// Turns a result into an [`Answer`].
pub fn answer<T: Serialize>(value: &T) -> Answer {
    serde_json::value::to_raw_value(value)
        .map_err(|error| Failure::new(FailureKind::Failed, format!("cannot write JSON: {error}")))
}

/// Reads a request line.
///
/// # Errors
/// [`FailureKind::BadRequest`].
pub fn parse_request(line: &[u8]) -> Result<Command, Failure> {
    let bad = |message: String| Failure::new(FailureKind::BadRequest, message);
    let request: Request = serde_json::from_slice(line)
        .map_err(|error| bad(format!("not a request that this version understands: {error}")))?;
    if request.v != VERSION {
        return Err(bad(format!(
            "the request speaks version {} of the protocol and this daemon version {VERSION}: use \
             the same version of medlb for both",
            request.v
        )));
    }
    Ok(request.command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_leave_out_the_version() {
        assert_eq!(parse_request(br#"{"command":"status"}"#), Ok(Command::Status));
    }

    #[test]
    fn every_command_survives_the_wire() {
        let server = || Server { service: "S".into(), real_server: "R".into() };
        let all = [
            Command::Status,
            Command::Reload,
            Command::Connections(Filter { service: Some("S".into()), limit: Some(3) }),
            Command::Persistence(Filter::default()),
            Command::Drain(server()),
            Command::CheckNow(server()),
        ];
        for command in all {
            let line = serde_json::to_vec(&Request { v: VERSION, command: command.clone() });
            assert_eq!(parse_request(&line.unwrap()), Ok(command));
        }
    }

    #[test]
    fn nonsense_and_other_versions_are_refused_in_words() {
        for line in ["", "{", "[]", r#"{"command":"dance"}"#, r#"{"command":"drain"}"#] {
            let failure = parse_request(line.as_bytes()).unwrap_err();
            assert_eq!(failure.kind, FailureKind::BadRequest, "{line}");
        }
        let failure = parse_request(br#"{"v":2,"command":"status"}"#).unwrap_err();
        assert!(failure.message.contains("version 2"), "{}", failure.message);
    }
}
