//! Namespaces that live as long as a thread: nothing has a name, so nothing can be left behind.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc as sync_mpsc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout};

use crate::net::announce::link_address;
use crate::net::{NetEvent, Resolution};

/// Long enough for a busy machine, short enough for a person.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a test in a network namespace of its own, on a runtime that never leaves its thread.
pub fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests of the network need root");
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in the calling thread's namespace.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs many `ip` commands in one process.
pub fn ip_batch(commands: &str) {
    use std::io::Write;
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// What `ip` prints.
pub fn ip_output(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Sets a kernel setting of the calling thread's namespace.
pub fn sysctl(key: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{key}"), value).unwrap_or_else(|e| panic!("{key}: {e}"));
}

type Job = Box<dyn FnOnce() + Send>;

/// Another machine: a thread with a namespace of its own.
pub struct Peer {
    thread_id: i32,
    jobs: sync_mpsc::Sender<Job>,
}

impl Peer {
    pub fn new() -> Self {
        let (jobs, work) = sync_mpsc::channel::<Job>();
        let (ready, started) = sync_mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            ready.send(nix::unistd::gettid().as_raw()).unwrap();
            work.into_iter().for_each(|job| job());
        });
        Self { thread_id: started.recv().unwrap(), jobs }
    }

    /// Does something in the peer's namespace and waits for it.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = sync_mpsc::channel();
        self.jobs.send(Box::new(move || reply.send(job()).unwrap())).unwrap();
        answer.recv().expect("the peer's job panicked")
    }

    pub fn ip(&self, arguments: &'static str) {
        self.run(move || ip(arguments));
    }

    /// Lays a cable: `ours` here, `theirs` there, both up, with fixed MAC addresses ending in `n`:
    /// 02:00:00:00:01:n here, 02:00:00:00:02:n there.
    pub fn connect(&self, ours: &str, theirs: &'static str, n: u8) {
        let id = self.thread_id;
        ip(&format!(
            "link add {ours} address 02:00:00:00:01:{n:02x} type veth \
             peer name {theirs} address 02:00:00:00:02:{n:02x} netns {id}"
        ));
        sysctl(&format!("net/ipv6/conf/{ours}/accept_dad"), "0");
        ip(&format!("link set {ours} up"));
        self.run(move || {
            sysctl(&format!("net/ipv6/conf/{theirs}/accept_dad"), "0");
            ip(&format!("link set {theirs} up"));
        });
    }

    /// Listens to every frame of an interface.
    pub fn sniff(&self, interface: &'static str) -> Sniffer {
        self.run(move || Sniffer::open(interface))
    }
}

/// Reads frames.
pub struct Sniffer {
    socket: Socket,
}

impl Sniffer {
    fn open(interface: &str) -> Self {
        let every = libc::ETH_P_ALL as u16;
        let protocol = Protocol::from(i32::from(every.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
        let index = nix::net::if_::if_nametoindex(interface).unwrap();
        socket.bind(&link_address(index, every)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket }
    }

    /// Collects frames that `wanted` accepts until there are `count`, or patience ends.
    pub async fn collect(&self, count: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let end = Instant::now() + PATIENCE;
        let mut frames = Vec::new();
        while frames.len() < count && Instant::now() < end {
            let mut buffer = [std::mem::MaybeUninit::<u8>::uninit(); 2048];
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    // SAFETY: recv has initialised the first `length` bytes.
                    let frame: Vec<u8> =
                        buffer[..length].iter().map(|b| unsafe { b.assume_init() }).collect();
                    if wanted(&frame) {
                        frames.push(frame);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    sleep(Duration::from_millis(5)).await;
                }
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(error) => panic!("{error}"),
            }
        }
        frames
    }
}

/// Waits for news of a destination that `wanted` accepts.
pub async fn path_event(
    news: &mut UnboundedReceiver<NetEvent>,
    destination: &str,
    wanted: impl Fn(&Resolution) -> bool,
) -> Resolution {
    let destination: IpAddr = destination.parse().unwrap();
    let mut last = None;
    let found = timeout(PATIENCE, async {
        loop {
            let event = news.recv().await.expect("the task runs");
            let NetEvent::PathsChanged(changes) = event else { continue };
            for (address, resolution) in changes {
                if address == destination {
                    last = Some(resolution.clone());
                    if wanted(&resolution) {
                        return resolution;
                    }
                }
            }
        }
    })
    .await;
    found.unwrap_or_else(|_| panic!("no such news of {destination}; the last was {last:?}"))
}

/// Waits for an event that `wanted` accepts.
pub async fn event(
    news: &mut UnboundedReceiver<NetEvent>,
    wanted: impl Fn(&NetEvent) -> bool,
) -> NetEvent {
    timeout(PATIENCE, async {
        loop {
            let event = news.recv().await.expect("the task runs");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
    .expect("no such event")
}

/// Waits until something holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never came true: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A directory that goes away with the test.
pub struct StateDir(pub PathBuf);

impl StateDir {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("medlb-net-{}-{number}", std::process::id())))
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
