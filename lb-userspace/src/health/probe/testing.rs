//! What the tests of the probes share: real peers on loopback, certificates, requests.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::dial::Dialer;
use super::{Request, run};
use crate::config::model::{CheckKind, HealthCheck, OnBusy, Tls};
use crate::health::{Outcome, ProbeResult};

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A check with a time-out in milliseconds.
pub fn check(kind: CheckKind, timeout: u64) -> HealthCheck {
    HealthCheck {
        name: None,
        kind,
        interval: Duration::from_secs(6),
        timeout: Duration::from_millis(timeout),
        rise: 2,
        fall: 3,
        port: None,
        via_rip: false,
    }
}

pub fn request(port: u16) -> Request {
    Request {
        service: "Archive".into(),
        real: "PACS1".into(),
        rip: LOOPBACK,
        port,
        vip: LOOPBACK,
        vip_port: 104,
        rpt: port,
        dialer: Dialer::default(),
        look: Arc::default(),
    }
}

pub async fn probe(kind: CheckKind, port: u16) -> Outcome {
    probe_for(kind, port, 5000).await
}

pub async fn probe_for(kind: CheckKind, port: u16, timeout: u64) -> Outcome {
    run(&request(port), &check(kind, timeout)).await
}

pub fn echo(called_ae: &str, tls: Option<Tls>) -> CheckKind {
    CheckKind::DicomEcho {
        calling_ae: "LOADBALANCER".into(),
        called_ae: called_ae.into(),
        tls,
        on_busy: OnBusy::Up,
        accept_association: false,
    }
}

/// A program that a test needs. Fails the test, with the way out, when it is not there.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/bin"])
        .map(|dir| Path::new(dir).join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: tests/peers.txt lists the packages"))
}

/// A file of tests/health/.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/health").join(name)
}

/// The Python that has the packages of tests/peers.txt.
pub fn python() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv");
    let venv = std::env::var_os("MEDLB_TEST_VENV").map_or(default, PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.is_file(), "no {}: run `cargo xtask setup`", python.display());
    python
}

/// A port that nothing listens on at the moment.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind((LOOPBACK, 0)).unwrap().local_addr().unwrap().port()
}

/// A peer's process. It ends with the test.
pub struct Peer {
    child: Child,
    log: tempfile::NamedTempFile,
    stdout: Option<BufReader<ChildStdout>>,
    stdin: Option<ChildStdin>,
    pub dir: tempfile::TempDir,
    pub port: u16,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Peer {
    /// Starts a server that listens on a free port, which `arguments` puts into its command line
    /// together with the peer's own directory.
    pub fn listen(name: &str, arguments: impl FnOnce(u16, &Path) -> Vec<String>) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new(program(name))
            .args(arguments(port, dir.path()))
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.reopen().unwrap())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut peer = Peer { child, log, stdout: None, stdin: None, dir, port };
        peer.wait_for_port(name);
        peer
    }

    /// Starts a Python peer, which prints its port.
    pub fn python(name: &str, arguments: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new(python())
            .arg(script(name))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let port = line.trim().parse();
        let port = port.unwrap_or_else(|_| panic!("{name}: {}", read(log.path())));
        let (stdin, dir) = (child.stdin.take(), tempfile::tempdir().unwrap());
        Peer { child, log, stdout: Some(stdout), stdin, dir, port }
    }

    /// Ends a Python peer in order and gives what it counted.
    pub fn counts(&mut self) -> serde_json::Value {
        drop(self.stdin.take());
        let mut text = String::new();
        self.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", self.log()))
    }

    pub fn log(&self) -> String {
        read(self.log.path())
    }

    /// Looks into /proc rather than connecting: a connection without a word is what the tests
    /// count as broken.
    fn wait_for_port(&mut self, name: &str) {
        for _ in 0..400 {
            if listening(self.port) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{name} ended with {status}: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("{name} does not listen on {}: {}", self.port, self.log());
    }
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn listening(port: u16) -> bool {
    sockets(port).iter().any(|state| state == LISTEN)
}

const LISTEN: &str = "0A";
const TIME_WAIT: &str = "06";

/// States of the TCP sockets that have this port at their own or at the other end.
fn sockets(port: u16) -> Vec<String> {
    let wanted = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let text: String = tables.iter().filter_map(|t| std::fs::read_to_string(t).ok()).collect();
    let state = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().skip(1).take(3).collect();
        let [local, remote, state] = fields[..] else { return None };
        (local.ends_with(&wanted) || remote.ends_with(&wanted)).then(|| state.to_owned())
    };
    text.lines().filter_map(state).collect()
}

/// Waits until the connections to a port are closed at both ends, and gives the states of those
/// that are not. What is open, half-open or half-closed shows here; so does a file left open.
pub async fn leftovers(port: u16) -> Vec<String> {
    let mut left = Vec::new();
    for _ in 0..40 {
        left = sockets(port);
        left.retain(|state| state != LISTEN && state != TIME_WAIT);
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    left
}

/// A thousand checks, twenty at a time; all must pass and leave nothing behind.
pub async fn a_thousand(kind: &CheckKind, port: u16) {
    for _ in 0..50 {
        let batch = (0..20).map(|_| probe(kind.clone(), port));
        for outcome in futures_util::future::join_all(batch).await {
            assert_eq!(outcome.result, ProbeResult::Pass, "{outcome:?}");
        }
    }
    let left = leftovers(port).await;
    assert!(left.is_empty(), "connections left in the states {left:?}");
}

/// Certificates for servers of tests, in PEM files.
pub struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    /// A CA, and certificates signed by it: `valid` and `client` (for `localhost` and 127.0.0.1), `expired`,
    /// `other` (for another host); `stranger` is signed by another CA.
    pub fn make() -> Self {
        use rcgen::{
            BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
        };
        let dir = tempfile::tempdir().unwrap();
        let ca = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let cert = params.self_signed(&key).unwrap().pem();
            (Issuer::new(params, key), cert)
        };
        let ((ours, pem), (theirs, _)) = (ca("Our CA"), ca("Another CA"));
        std::fs::write(dir.path().join("ca.pem"), pem).unwrap();
        let make = |name: &str, hosts: &[&str], years: (i32, i32), issuer: &Issuer<'_, KeyPair>| {
            let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            let mut params = CertificateParams::new(hosts).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.not_before = date_time_ymd(years.0, 1, 1);
            params.not_after = date_time_ymd(years.1, 1, 1);
            let key = KeyPair::generate().unwrap();
            let cert = params.signed_by(&key, issuer).unwrap();
            std::fs::write(dir.path().join(format!("{name}.pem")), cert.pem()).unwrap();
            let path = dir.path().join(format!("{name}.key"));
            let mut file = File::create(&path).unwrap();
            file.write_all(key.serialize_pem().as_bytes()).unwrap();
            set_mode(&path, 0o600);
        };
        let here: &[&str] = &["localhost", "127.0.0.1"];
        make("valid", here, (2020, 2099), &ours);
        make("client", here, (2020, 2099), &ours);
        make("expired", here, (2020, 2021), &ours);
        make("other", &["pacs.example"], (2020, 2099), &ours);
        make("stranger", here, (2020, 2099), &theirs);
        Certificates { dir }
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub fn text(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    /// Verifying against our CA, for the server's address.
    pub fn tls(&self) -> Tls {
        let ca_file = Some(self.path("ca.pem"));
        Tls { verify: true, ca_file, client: None, server_name: None }
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
