//! Listens on the control socket. Each client has a task of its own, so a slow one holds up nobody;
//! what it asks goes to the event loop over a channel.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::protocol::{self, Answer, Command, Failure, FailureKind, MAX_REQUEST, Reply};

/// Clients at the same time.
const MAX_CLIENTS: usize = 64;
/// How long a client may take between requests.
const IDLE: Duration = Duration::from_secs(120);
/// How long a client may take to read a reply.
const WRITE: Duration = Duration::from_secs(15);
/// How long the daemon may take to answer: longer than any check's time-out is sensible.
const ANSWER: Duration = Duration::from_secs(80);

/// A command on its way to the event loop.
#[derive(Debug)]
pub struct Call {
    /// What is asked for.
    pub command: Command,
    /// Where the answer goes. Dropped when the client has gone.
    pub reply: oneshot::Sender<Answer>,
    /// The user who asks, for the log.
    pub uid: Option<u32>,
}

/// A bound control socket. Dropping it removes the file.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    /// Removes the file also when the task that accepts is dropped.
    _file: SocketFile,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: a successor's socket at the same path is not ours to remove.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).ok() == Some(self.identity) {
            fs::remove_file(&self.path).ok();
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

impl Server {
    /// Binds `path` with mode 0660 and `group`, if one is named. Its directory is made; the socket
    /// of a daemon that is no more is replaced. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A daemon listens there already, something else than a socket is in the way, the group does
    /// not exist, or the path cannot be made.
    pub fn bind(path: &Path, group: Option<&str>) -> anyhow::Result<Self> {
        let at = path.display();
        let gid = match group {
            None => None,
            Some(name) => Some(
                nix::unistd::Group::from_name(name)
                    .with_context(|| format!("cannot look up group {name:?}"))?
                    .with_context(|| {
                        format!(
                            "global.socket_group: there is no group {name:?} on this host; make it \
                             with `groupadd --system {name}`"
                        )
                    })?
                    .gid,
            ),
        };
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent).with_context(|| {
                format!("cannot make {} for the control socket", parent.display())
            })?;
        }
        clear_the_way(path)?;
        let listener = UnixListener::bind(path).with_context(|| {
            let long = path.as_os_str().len() > 107;
            let why = if long { " (a socket's path has at most 107 bytes)" } else { "" };
            format!("cannot make the control socket {at}{why}")
        })?;
        let file = SocketFile {
            path: path.to_owned(),
            identity: identity(path).with_context(|| format!("cannot find {at} again"))?,
        };
        nix::unistd::chown(path, None, gid)
            .with_context(|| format!("cannot give {at} to its group"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))
            .with_context(|| format!("cannot set the mode of {at}"))?;
        Ok(Self { listener, _file: file })
    }

    /// Answers clients until it is dropped, or the receiver of `calls` is.
    pub async fn serve(self, calls: mpsc::Sender<Call>) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of file descriptors, most likely: it passes.
                        warn!(%error, "cannot accept a client on the control socket");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        continue;
                    }
                },
                () = calls.closed() => return,
            };
            let calls = calls.clone();
            let place = places.clone().try_acquire_owned();
            tokio::spawn(async move {
                let ended = match place {
                    Ok(_place) => converse(stream, &calls).await,
                    Err(_) => turn_away(stream).await,
                };
                if let Err(error) = ended {
                    debug!(%error, "a client of the control socket went away");
                }
            });
        }
    }
}

/// Removes the socket of a daemon that is no more.
fn clear_the_way(path: &Path) -> anyhow::Result<()> {
    let at = path.display();
    let kind = match fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(format!("cannot look at {at}")),
    };
    if !kind.is_socket() {
        bail!("{at} is in the way of the control socket and is not a socket: move it away");
    }
    if let Some(pid) = listening_pid(path) {
        bail!("medlb is already running (pid {pid}): its socket {at} answers");
    }
    fs::remove_file(path).with_context(|| format!("cannot remove the old socket {at}"))
}

/// The process that listens at `path`, if one does.
pub fn listening_pid(path: &Path) -> Option<i32> {
    let stream = StdStream::connect(path).ok()?;
    let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials);
    Some(peer.map_or(0, |credentials| credentials.pid()))
}

async fn turn_away(mut stream: UnixStream) -> io::Result<()> {
    let failure = Failure::new(
        FailureKind::Busy,
        format!("the daemon already has {MAX_CLIENTS} clients: try again later"),
    );
    send(&mut stream, Err(failure)).await
}

async fn converse(stream: UnixStream, calls: &mpsc::Sender<Call>) -> io::Result<()> {
    let uid = stream.peer_cred().ok().map(|peer| peer.uid());
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(MAX_REQUEST as u64);
        match timeout(IDLE, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(read) => read?,
        };
        let whole = line.ends_with(b"\n");
        if !whole && line.len() >= MAX_REQUEST {
            let message = format!("the request is longer than {MAX_REQUEST} bytes");
            return send(&mut writer, Err(Failure::new(FailureKind::BadRequest, message))).await;
        }
        let answer = match protocol::parse_request(&line) {
            Ok(command) => relay(command, uid, calls).await,
            Err(failure) => Err(failure),
        };
        send(&mut writer, answer).await?;
        if !whole {
            return Ok(());
        }
    }
}

async fn relay(command: Command, uid: Option<u32>, calls: &mpsc::Sender<Call>) -> Answer {
    let stopping = || Failure::new(FailureKind::Busy, "the daemon is stopping");
    let late = || {
        let message = format!("the daemon gave no answer within {} s", ANSWER.as_secs());
        Failure::new(FailureKind::Failed, message)
    };
    let (reply, answer) = oneshot::channel();
    let ask = async {
        calls.send(Call { command, reply, uid }).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    };
    timeout(ANSWER, ask).await.unwrap_or_else(|_| Err(late()))
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), answer: Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Reply::from(answer))?;
    line.push(b'\n');
    timeout(WRITE, writer.write_all(&line))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it reads no reply")))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
