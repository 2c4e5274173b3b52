//! `external`: a script, called as ldirectord and HAProxy call theirs. It runs as an unprivileged
//! user in a process group of its own, which is gone when the check is over, whatever it did.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, Uid, User};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Exchange, Finding, Request, Verdict};

const PHASE: &str = "script";

/// Scripts that run at one time; a process costs more than a socket.
static RUNNING: Semaphore = Semaphore::const_new(64);

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_millis(500);

/// How long the last of stderr is waited for after the script has ended.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// How much of the end of stderr is kept.
const TAIL: usize = 1024;

/// Runs the script. Its time starts when there is room for it to run.
pub async fn check(exchange: &Exchange<'_>, command: &[String], user: &str) -> Verdict {
    let fail = |detail: String| Finding::fail(PHASE, detail);
    let _room = RUNNING.acquire().await.expect("the semaphore is never closed");
    let deadline = Instant::now() + exchange.timeout;
    let mut script = Script::start(exchange.request, command, user).map_err(fail)?;
    let mut tail = Vec::new();
    let finding = match script.wait(&mut tail, deadline).await {
        Some(Ok(status)) => judge(status, &tail),
        Some(Err(error)) => Err(fail(format!("cannot wait for the script: {error}"))),
        None => {
            Err(fail(with_tail(format!("the script did not end {}", exchange.within()), &tail)))
        }
    };
    script.clear_away().await;
    finding
}

fn judge(status: ExitStatus, tail: &[u8]) -> Verdict {
    if status.success() {
        return Ok(Finding::pass(PHASE, "exit code 0"));
    }
    let what = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    };
    Err(Finding::fail(PHASE, with_tail(what, tail)))
}

/// Adds the last line that the script wrote to stderr.
fn with_tail(what: String, tail: &[u8]) -> String {
    let text = String::from_utf8_lossy(tail);
    match text.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!("{what}: {line}"),
        None => what,
    }
}

/// A running script and its process group. Dropping it kills the group.
struct Script {
    child: Child,
    group: Pid,
    /// Readable once the script has ended; it is not reaped by that, so that the group's id cannot
    /// be given to others before the group was killed.
    ended: Option<AsyncFd<OwnedFd>>,
    stderr: Option<ChildStderr>,
    cleared: bool,
}

impl Drop for Script {
    fn drop(&mut self) {
        if !self.cleared {
            killpg(self.group, Signal::SIGKILL).ok();
        }
    }
}

impl Script {
    fn start(request: &Request, command: &[String], user: &str) -> Result<Self, String> {
        let (program, arguments) = command.split_first().ok_or("no command is given")?;
        let mut process = Command::new(program);
        process
            .args(arguments)
            .args(arguments_of(request))
            .env_clear()
            .envs(environment(request))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        become_user(&mut process, user)?;
        let mut child = process.spawn().map_err(|e| format!("cannot run {program}: {e}"))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let id = id.ok_or("the script's process has no id")?;
        let stderr = child.stderr.take();
        let ended = watch(id).ok();
        Ok(Script { child, group: Pid::from_raw(id), ended, stderr, cleared: false })
    }

    /// Waits until the script has ended and keeps the end of its stderr. None: the deadline came.
    async fn wait(
        &mut self,
        tail: &mut Vec<u8>,
        deadline: Instant,
    ) -> Option<std::io::Result<ExitStatus>> {
        let mut stderr = self.stderr.take();
        let Some(ended) = &self.ended else {
            return timeout_at(deadline, self.child.wait()).await.ok();
        };
        let mut ending = std::pin::pin!(ended.readable());
        let over = loop {
            tokio::select! {
                over = timeout_at(deadline, &mut ending) => break over.is_ok(),
                more = read_tail(&mut stderr, tail), if stderr.is_some() => if !more { stderr = None },
            }
        };
        // What is still in the pipe; a child that went into the background may hold it open.
        let rest = async { while read_tail(&mut stderr, tail).await {} };
        timeout(LAST_WORDS, rest).await.ok();
        if !over {
            return None;
        }
        killpg(self.group, Signal::SIGKILL).ok();
        self.cleared = true;
        Some(self.child.wait().await)
    }

    /// Ends what is left of the group: TERM, then KILL; and reaps the script.
    async fn clear_away(mut self) {
        if self.cleared {
            return;
        }
        killpg(self.group, Signal::SIGTERM).ok();
        if let Some(ended) = &self.ended {
            timeout(GRACE, ended.readable()).await.ok();
        } else {
            timeout(GRACE, self.child.wait()).await.ok();
        }
        killpg(self.group, Signal::SIGKILL).ok();
        self.cleared = true;
        self.child.wait().await.ok();
    }
}

/// A descriptor that becomes readable when a process ends (pidfd_open(2), Linux 5.3).
fn watch(id: i32) -> std::io::Result<AsyncFd<OwnedFd>> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let id = Pid::from_raw(id).ok_or(std::io::ErrorKind::InvalidInput)?;
    let fd = pidfd_open(id, PidfdFlags::empty())?;
    // SAFETY: the OwnedFd closes its descriptor only when it is dropped, which is after AsyncFd has
    // deregistered it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Reads some of stderr and keeps its end. False: there is no more.
async fn read_tail(stderr: &mut Option<ChildStderr>, tail: &mut Vec<u8>) -> bool {
    let Some(pipe) = stderr else { return false };
    let mut scratch = [0; 4096];
    let Ok(n @ 1..) = pipe.read(&mut scratch).await else { return false };
    tail.extend(&scratch[..n]);
    if tail.len() > TAIL {
        tail.drain(..tail.len() - TAIL);
    }
    true
}

fn become_user(process: &mut Command, name: &str) -> Result<(), String> {
    let user = User::from_name(name)
        .map_err(|e| format!("cannot look up the user \"{name}\": {e}"))?
        .ok_or_else(|| format!("there is no user \"{name}\" on this machine: set `user`"))?;
    if Uid::effective().is_root() {
        // The standard library drops root's supplementary groups together with its uid.
        process.gid(user.gid.as_raw()).uid(user.uid.as_raw());
    } else if user.uid != Uid::effective() {
        return Err(format!("medlb does not run as root and cannot run a script as \"{name}\""));
    }
    Ok(())
}

/// `VIP VPT RIP RPT`.
fn arguments_of(request: &Request) -> [String; 4] {
    let Request { vip, vip_port, rip, rpt, .. } = request;
    [vip.to_string(), vip_port.to_string(), rip.to_string(), rpt.to_string()]
}

/// HAProxy's names, each with a twin of ours.
fn environment(request: &Request) -> Vec<(String, String)> {
    let own = [
        ("PROXY_NAME", request.service.clone()),
        ("PROXY_ADDR", request.vip.to_string()),
        ("PROXY_PORT", request.vip_port.to_string()),
        ("SERVER_NAME", request.real.clone()),
        ("SERVER_ADDR", request.rip.to_string()),
        ("SERVER_PORT", request.port.to_string()),
    ];
    let both = own.into_iter().flat_map(|(name, value)| {
        [(format!("HAPROXY_{name}"), value.clone()), (format!("MEDLB_{name}"), value)]
    });
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    // A label may hold anything but what the kernel cannot pass on.
    let both = both.map(|(name, value)| (name, value.replace('\0', "")));
    both.chain([("PATH".to_owned(), path.to_owned())]).collect()
}
