//! The binary as scripts see it: exit codes, JSON, pipes. The daemon is a stand-in that answers
//! each command with a canned result.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const STATUS: &str = r#"{"version":"0.1.0","pid":1,"uptime_s":12,"config_hash":"x","config_path":"y","heartbeat_age_ms":8,"interfaces":[{"name":"eth0","xdp_mode":"native"}],"services":[{"label":"DICOM","address":"10.12.1.100","ports":"104","protocol":"tcp","forwarding_method":"dr","scheduler":"wlc","state":"STATE","active_connections":2,"using_fallback":false,"real_servers":[]}],"notes":[]}"#;

fn medlb() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_medlb"));
    command.env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    medlb().args(args).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not ended by a signal")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A daemon that gives every request this reply.
struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new(reply: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s")).unwrap();
        let reply = format!("{reply}\n");
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let reply = reply.clone();
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream.unwrap());
                    let mut line = String::new();
                    while stream.read_line(&mut line).is_ok_and(|n| n > 0) {
                        if stream.get_mut().write_all(reply.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { dir }
    }

    fn ok(result: &str) -> Self {
        Self::new(&format!(r#"{{"v":1,"ok":true,"result":{result}}}"#))
    }

    fn error(kind: &str, message: &str) -> Self {
        Self::new(&format!(
            r#"{{"v":1,"ok":false,"error":{{"kind":"{kind}","message":"{message}"}}}}"#
        ))
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn run(&self, args: &[&str]) -> Output {
        medlb().arg("--socket").arg(self.socket()).args(args).output().unwrap()
    }
}

fn missing(dir: &Path) -> String {
    dir.join("no-socket").display().to_string()
}

#[test]
fn a_wrong_command_line_is_2_and_help_is_0() {
    assert_eq!(code(&run(&["dance"])), 2);
    assert_eq!(code(&run(&["drain", "only-one"])), 2);
    assert_eq!(code(&run(&["--log-level", "loud", "status"])), 2);
    let help = run(&["--help"]);
    assert_eq!(code(&help), 0);
    assert!(stdout(&help).contains("Exit codes:"), "{}", stdout(&help));
}

#[test]
fn without_a_daemon_every_command_that_needs_one_is_69() {
    let dir = tempfile::tempdir().unwrap();
    let socket = missing(dir.path());
    let commands: [&[&str]; 11] = [
        &["reload"],
        &["status"],
        &["status", "--json"],
        &["stats"],
        &["stats", "--watch"],
        &["connections"],
        &["persistence"],
        &["drain", "S", "R"],
        &["explain", "S", "R"],
        &["check-now", "S", "R"],
        &["doctor"],
    ];
    for command in commands {
        let output = run(&[command, &["--socket", &socket]].concat());
        assert_eq!(code(&output), 69, "{command:?}: {}", stderr(&output));
    }
    let output = run(&["status", "--socket", &socket]);
    assert!(stderr(&output).starts_with("medlb: no daemon answers at"), "{}", stderr(&output));
}

#[test]
fn status_check_speaks_to_monitoring() {
    for (state, expected, word) in
        [("green", 0, "OK"), ("yellow", 1, "WARNING"), ("red", 2, "CRITICAL")]
    {
        let output = Fake::ok(&STATUS.replace("STATE", state)).run(&["status", "--check"]);
        assert_eq!(code(&output), expected, "{state}");
        assert!(stdout(&output).starts_with(&format!("MEDLB {word} - ")), "{}", stdout(&output));
    }
    let dir = tempfile::tempdir().unwrap();
    let output = run(&["status", "--check", "--socket", &missing(dir.path())]);
    assert_eq!(code(&output), 3);
    assert!(stdout(&output).starts_with("MEDLB UNKNOWN - no daemon"), "{}", stdout(&output));
}

#[test]
fn json_is_what_the_daemon_said_on_one_line() {
    let status = STATUS.replace("STATE", "green");
    let output = Fake::ok(&status).run(&["status", "--json"]);
    assert_eq!((code(&output), stdout(&output)), (0, format!("{status}\n")));
}

#[test]
fn colours_are_for_terminals_unless_asked_for() {
    let fake = Fake::ok(&STATUS.replace("STATE", "green"));
    assert!(!stdout(&fake.run(&["status"])).contains('\u{1b}'));
    assert!(stdout(&fake.run(&["status", "--color", "always"])).contains("\u{1b}[32mgreen"));
    assert!(!stdout(&fake.run(&["status", "--color", "never"])).contains('\u{1b}'));
}

#[test]
fn a_refused_command_is_1_and_an_invalid_configuration_78() {
    let output = Fake::error("not_found", "there is no virtual service").run(&["drain", "S", "R"]);
    assert_eq!(code(&output), 1);
    assert_eq!(stderr(&output), "medlb: there is no virtual service\n");
    let output = Fake::error("invalid_configuration", "f:3: interfaces: empty").run(&["reload"]);
    assert_eq!(code(&output), 78);
    assert!(stderr(&output).contains("interfaces: empty"));
}

#[test]
fn a_daemon_that_speaks_something_else_is_told_in_words() {
    let output = Fake::new("HTTP/1.1 400 Bad Request").run(&["status"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("does not speak medlb's protocol"), "{}", stderr(&output));
}

#[test]
fn a_check_that_failed_is_1() {
    let checked = r#"{"service":"S","real_server":"R","check":{"at":"2026-11-20T10:00:00Z","result":"fail","phase":"connect","detail":"refused","duration_ms":0.2},"health":"down"}"#;
    let output = Fake::ok(checked).run(&["check-now", "S", "R"]);
    assert_eq!(code(&output), 1);
    assert_eq!(stdout(&output), "S / R: fail at connect: refused (0.2 ms); health: down\n");
}

/// Standard output is a pipe that nobody reads any more.
fn with_closed_pipe(mut command: Command) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_broken_pipe_is_not_an_error() {
    let fake = Fake::ok(&STATUS.replace("STATE", "red"));
    let on_socket = |args: &[&str]| {
        let mut command = medlb();
        command.arg("--socket").arg(fake.socket()).args(args);
        command
    };
    for args in [&["status"][..], &["status", "--json"], &["--help"]] {
        let output = with_closed_pipe(on_socket(args));
        assert_eq!((code(&output), stderr(&output)), (0, String::new()), "{args:?}");
    }
    // Monitoring wants its exit code all the same.
    assert_eq!(code(&with_closed_pipe(on_socket(&["status", "--check"]))), 2);
}

#[test]
fn watch_into_a_pipe_writes_json_lines_and_ends_with_its_reader() {
    let fake = Fake::ok(r#"{"services":[],"verdicts":{},"tables":{}}"#);
    let mut child = medlb()
        .arg("--socket")
        .arg(fake.socket())
        .args(["stats", "--watch", "--json", "--interval", "100ms"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..3 {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "{\"services\":[],\"verdicts\":{},\"tables\":{}}\n");
    }
    drop(lines);
    let ended = wait(&mut child);
    assert_eq!(ended.code(), Some(0));
}

fn wait(child: &mut std::process::Child) -> std::process::ExitStatus {
    for _ in 0..500 {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("it did not end");
}

/// What it wrote is what a screen would get.
#[test]
fn watch_leaves_the_terminal_as_it_found_it_on_ctrl_c() {
    let fake = Fake::ok(r#"{"services":[],"verdicts":{"not_ours":5},"tables":{}}"#);
    let (mut reader, _other_end, mut child) =
        on_terminal(medlb().arg("--socket").arg(fake.socket()).args([
            "stats",
            "--watch",
            "--interval",
            "100ms",
        ]));
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains("PKT/S") {
        let n = reader.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..n]);
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(wait(&mut child).code(), Some(0));
    let n = reader.read(&mut buffer).unwrap_or(0);
    seen.extend_from_slice(&buffer[..n]);
    let text = String::from_utf8_lossy(&seen);
    for (set, unset) in [("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h")] {
        let (entered, left) = (text.find(set).unwrap(), text.rfind(unset).unwrap());
        assert!(entered < left, "{text:?}");
    }
    assert!(text.ends_with("\x1b[?1049l"), "{text:?}");
}

/// Starts a command with a pseudo-terminal as standard output.
fn on_terminal(
    command: &mut Command,
) -> (std::fs::File, std::os::fd::OwnedFd, std::process::Child) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let slave = pty.slave.try_clone().unwrap();
    let child = command.stdout(slave).spawn().unwrap();
    (pty.master.into(), pty.slave, child)
}
