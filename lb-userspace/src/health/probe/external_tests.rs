//! Scripts that behave, hang, fork, flood and need their arguments.

use std::path::Path;
use std::time::{Duration, Instant};

use super::testing::{check, request, set_mode};
use super::{Request, run};
use crate::config::model::CheckKind;
use crate::health::Outcome;
use crate::health::ProbeResult::{Fail, Pass};

/// A user that exists everywhere; tests that do not run as root run scripts as themselves.
fn user() -> String {
    let me = nix::unistd::Uid::effective();
    if me.is_root() {
        return "nobody".into();
    }
    nix::unistd::User::from_uid(me).unwrap().unwrap().name
}

/// A directory that `nobody` can enter, with a script in it.
fn script(text: &str) -> (tempfile::TempDir, CheckKind) {
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o777);
    let file = dir.path().join("check.sh");
    std::fs::write(&file, format!("#!/bin/bash\n{text}\n")).unwrap();
    set_mode(&file, 0o755);
    let command = vec![file.display().to_string(), "first".into()];
    (dir, CheckKind::External { command, user: user() })
}

async fn outcome(kind: CheckKind, timeout: u64) -> Outcome {
    run(&request(8104), &check(kind, timeout)).await
}

/// Waits for a file that a script writes, which takes the script's process a moment.
fn number_in(file: &Path) -> i32 {
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// Whether a process still runs; a zombie does not.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next())
        .is_some_and(|s| s != "Z")
}

async fn gone(pid: i32) -> bool {
    for _ in 0..50 {
        if !runs(pid) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn the_exit_code_decides_and_the_last_line_of_stderr_is_shown() {
    let (_dir, kind) = script("echo to stdout; echo first >&2; exit 0");
    let good = outcome(kind, 3000).await;
    assert_eq!((good.result, good.detail.as_str()), (Pass, "exit code 0"), "{good:?}");
    let (_dir, kind) = script("echo first >&2; echo 'queue is full' >&2; echo >&2; exit 3");
    let bad = outcome(kind, 3000).await;
    assert_eq!((bad.result, bad.phase), (Fail, "script"), "{bad:?}");
    assert_eq!(bad.detail, "exit code 3: queue is full");
    let (_dir, kind) = script("kill -9 $$");
    assert_eq!(outcome(kind, 3000).await.detail, "ended by signal 9");
}

#[tokio::test]
async fn the_script_gets_its_arguments_environment_and_user() {
    let (dir, kind) = script(
        "here=$(dirname \"$0\"); echo \"$*\" > $here/args; env | sort > $here/env; id -un > $here/user",
    );
    let asked = Request { vip: "10.12.1.100".parse().unwrap(), rpt: 0, ..request(8104) };
    let found = run(&asked, &check(kind, 3000)).await;
    assert_eq!(found.result, Pass, "{found:?}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("args"), "first 10.12.1.100 104 127.0.0.1 0\n", "RPT is 0 where it is blank");
    let env = read("env");
    for line in [
        "HAPROXY_PROXY_NAME=Archive",
        "HAPROXY_SERVER_NAME=PACS1",
        "HAPROXY_SERVER_ADDR=127.0.0.1",
        "HAPROXY_SERVER_PORT=8104",
        "HAPROXY_PROXY_ADDR=10.12.1.100",
        "HAPROXY_PROXY_PORT=104",
        "MEDLB_PROXY_NAME=Archive",
        "MEDLB_SERVER_NAME=PACS1",
        "MEDLB_SERVER_ADDR=127.0.0.1",
        "MEDLB_SERVER_PORT=8104",
    ] {
        assert!(env.lines().any(|l| l == line), "{line} is not in {env}");
    }
    assert!(!env.contains("CARGO"), "nothing of our own environment: {env}");
    assert_eq!(read("user").trim(), user());
}

#[tokio::test]
async fn a_script_can_need_the_real_servers_port() {
    let (_dir, kind) = script("[ \"$5\" = 8104 ] || { echo \"no port: $5\" >&2; exit 1; }");
    assert_eq!(outcome(kind.clone(), 3000).await.result, Pass);
    let blank = run(&Request { rpt: 0, ..request(8104) }, &check(kind, 3000)).await;
    assert_eq!(blank.detail, "exit code 1: no port: 0", "{blank:?}");
}

#[tokio::test]
async fn a_script_that_hangs_is_ended_with_its_children() {
    let (dir, kind) = script(
        "here=$(dirname \"$0\"); echo $$ > $here/self; sleep 60 & echo $! > $here/child\n\
         echo 'waiting for the archive' >&2; wait",
    );
    let started = Instant::now();
    let found = outcome(kind, 500).await;
    assert!(started.elapsed() < Duration::from_secs(30), "it would have slept for a minute");
    assert_eq!(found.result, Fail, "{found:?}");
    assert_eq!(found.detail, "the script did not end within 500 ms: waiting for the archive");
    for name in ["self", "child"] {
        assert!(gone(number_in(&dir.path().join(name))).await, "{name} still runs");
    }
}

#[tokio::test]
async fn a_script_that_ignores_term_is_killed() {
    let (dir, kind) =
        script("trap '' TERM; echo $$ > $(dirname \"$0\")/self; while :; do sleep 0.1; done");
    let found = outcome(kind, 300).await;
    assert_eq!(found.result, Fail, "{found:?}");
    assert!(gone(number_in(&dir.path().join("self"))).await);
}

#[tokio::test]
async fn a_child_in_the_background_neither_delays_the_verdict_nor_survives() {
    let (dir, kind) = script("sleep 60 & echo $! > $(dirname \"$0\")/child; exit 0");
    let started = Instant::now();
    let found = outcome(kind, 5000).await;
    assert_eq!(found.result, Pass, "{found:?}");
    assert!(started.elapsed() < Duration::from_secs(30), "the child holds stderr open");
    assert!(gone(number_in(&dir.path().join("child"))).await);
}

#[tokio::test]
async fn a_flood_on_stderr_is_bounded_and_blocks_nobody() {
    let (_dir, kind) =
        script("head -c 20000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo end >&2; exit 1");
    let found = outcome(kind, 10_000).await;
    assert_eq!(found.detail, "exit code 1: end", "{found:?}");
    let (_dir, kind) = script("yes flooding >&2");
    let found = outcome(kind, 300).await;
    assert_eq!(found.result, Fail);
    assert!(found.detail.len() < 500, "{found:?}");
}

#[tokio::test]
async fn what_cannot_be_run_is_told() {
    let kind = |command: &[&str], user: &str| CheckKind::External {
        command: command.iter().map(ToString::to_string).collect(),
        user: user.into(),
    };
    let lost = outcome(kind(&["/nonexistent/check.sh"], &user()), 1000).await;
    assert!(lost.detail.contains("cannot run /nonexistent/check.sh"), "{lost:?}");
    let nobody = outcome(kind(&["/bin/true"], "no-such-user"), 1000).await;
    assert!(nobody.detail.contains("no user \"no-such-user\""), "{nobody:?}");
}

#[tokio::test]
async fn scripts_beyond_the_cap_wait_for_room_and_keep_their_whole_time() {
    let (_dir, kind) = script("sleep 0.2");
    let many = (0..150).map(|_| outcome(kind.clone(), 8000));
    for found in futures_util::future::join_all(many).await {
        assert_eq!(found.result, Pass, "{found:?}");
    }
}
