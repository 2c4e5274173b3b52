//! Asks the daemon: one request, one reply, blocking, with a time-out.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::protocol::{Command, Failure, Reply, Request, VERSION};

/// How long to wait for a reply. A reload of a thousand services takes a second; a check as long
/// as its time-out.
const PATIENCE: Duration = Duration::from_secs(90);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or whoever does says nothing.
    #[error("{0}")]
    NoDaemon(String),
    /// The daemon refused the command.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The daemon's answer makes no sense.
    #[error("{0}")]
    Nonsense(String),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the daemon that listens at `path`.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`], with what to do in words.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let at = path.display();
        let explain = |error: io::Error| {
            ClientError::NoDaemon(match error.kind() {
                io::ErrorKind::NotFound => format!(
                    "no daemon answers at {at}: the socket does not exist. Start one with `medlb \
                     run --config FILE`, or name its socket with --socket PATH"
                ),
                io::ErrorKind::ConnectionRefused => format!(
                    "no daemon answers at {at}: it has ended without removing its socket. The \
                     data plane goes on forwarding; start the daemon again with `medlb run \
                     --config FILE`"
                ),
                io::ErrorKind::PermissionDenied => format!(
                    "no permission to speak to the daemon at {at}: run this as root, or as a \
                     member of the group named by global.socket_group"
                ),
                _ => format!("no daemon answers at {at}: {error}"),
            })
        };
        let stream = UnixStream::connect(path).map_err(explain)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(explain)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(explain)?;
        Ok(Self { stream: BufReader::new(stream), path: path.to_owned() })
    }

    /// Sends a command and gives the result's JSON as the daemon wrote it.
    ///
    /// # Errors
    /// The daemon is gone, refuses, or does not speak this protocol.
    pub fn ask(&mut self, command: Command) -> Result<Box<RawValue>, ClientError> {
        let request = Request { v: VERSION, command };
        let mut line = serde_json::to_vec(&request)
            .map_err(|error| ClientError::Nonsense(format!("cannot write JSON: {error}")))?;
        line.push(b'\n');
        let mut reply = String::new();
        let sent = self.stream.get_mut().write_all(&line);
        // A daemon that has had enough may have said why before it closed.
        let received = self.stream.read_line(&mut reply);
        if reply.is_empty() {
            let closed = io::Error::other("it closed the connection");
            let error = sent.and(received.map(drop)).err().unwrap_or(closed);
            return Err(self.lost(&error));
        }
        let reply: Reply = serde_json::from_str(&reply).map_err(|error| {
            let at = self.path.display();
            ClientError::Nonsense(format!(
                "what answers at {at} does not speak medlb's protocol, or another version of it: \
                 {error}"
            ))
        })?;
        match (reply.result, reply.error) {
            (Some(result), _) if reply.ok => Ok(result),
            (_, Some(failure)) => Err(ClientError::Refused(failure)),
            _ => Err(ClientError::Nonsense("the daemon gave neither result nor error".into())),
        }
    }

    /// As [`Client::ask`], decoded.
    ///
    /// # Errors
    /// As [`Client::ask`]; also when the result is not what this version expects.
    pub fn get<T: DeserializeOwned>(&mut self, command: Command) -> Result<T, ClientError> {
        decode(&self.ask(command)?)
    }

    fn lost(&self, error: &io::Error) -> ClientError {
        let at = self.path.display();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::NoDaemon(format!(
                "the daemon at {at} did not answer within {} s",
                PATIENCE.as_secs()
            )),
            _ => ClientError::NoDaemon(format!("the daemon at {at} went away: {error}")),
        }
    }
}

/// Decodes a result.
///
/// # Errors
/// It is not what this version expects.
pub fn decode<T: DeserializeOwned>(result: &RawValue) -> Result<T, ClientError> {
    serde_json::from_str(result.get()).map_err(|error| {
        ClientError::Nonsense(format!(
            "the daemon's answer is not what this version of medlb expects ({error}): use the \
             same version for both"
        ))
    })
}
