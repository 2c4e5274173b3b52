//! Checks through the VIP, as far as the probe's side goes: the mark on its sockets, and what is
//! said when the VIP does not answer. The rest is the data plane's, and tested end to end.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;

use super::dial::Dialer;
use super::testing::{LOOPBACK, check, free_port, program, request};
use super::{Request, run};
use crate::config::model::CheckKind;
use crate::health::Outcome;
use crate::health::ProbeResult::{Fail, Pass};

const MARK: u32 = 0x6D65;

/// Runs something in a network namespace that has only a loopback and ends with its thread.
/// Packets with the mark are lost there, as they are where no server has the VIP.
fn where_marked_packets_are_lost<T, F>(work: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let mark = MARK.to_string();
        for arguments in [
            &["link", "set", "lo", "up"][..],
            &["rule", "add", "pref", "1", "fwmark", &mark, "unreachable"],
            &["rule", "add", "pref", "2", "lookup", "local"],
            &["rule", "del", "pref", "0"],
        ] {
            let done = Command::new(program("ip")).args(arguments).status().unwrap();
            assert!(done.success(), "ip {arguments:?}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work())
    });
    thread.join().unwrap()
}

fn through_the_vip(port: u16) -> Request {
    let dialer = Dialer { mark: Some(MARK), source: None };
    Request { vip: "10.12.1.100".parse().unwrap(), dialer, ..request(port) }
}

async fn connect(asked: &Request) -> Outcome {
    run(asked, &check(CheckKind::Connect, 500)).await
}

fn root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

#[test]
fn a_vip_that_is_not_bound_is_named_when_the_server_itself_answers() {
    if !root() {
        return without_the_privilege_to_mark_the_check_says_so();
    }
    let (marked, plain) = where_marked_packets_are_lost(|| async {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        (connect(&through_the_vip(port)).await, connect(&request(port)).await)
    });
    assert_eq!(plain.result, Pass, "{plain:?}");
    assert_eq!((marked.result, marked.phase), (Fail, "connect"), "{marked:?}");
    let words =
        "though the server answers on 127.0.0.1: is the VIP 10.12.1.100 bound on its loopback?";
    assert!(marked.detail.contains(words), "{marked:?}");
    assert!(
        marked.duration < Duration::from_millis(600),
        "the second look costs nothing: {marked:?}"
    );
}

#[test]
fn the_server_itself_is_looked_at_once_and_not_at_every_check() {
    if !root() {
        return without_the_privilege_to_mark_the_check_says_so();
    }
    let (first, second, fresh, looks) = where_marked_packets_are_lost(|| async {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let looks = Arc::new(AtomicUsize::new(0));
        let count = looks.clone();
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let request = through_the_vip(port);
        let first = connect(&request).await;
        let second = connect(&request).await;
        // What was known is of no more worth once the VIP reaches the server again.
        let reached = Request { dialer: Dialer { mark: Some(0), source: None }, ..request.clone() };
        assert_eq!(connect(&reached).await.result, Pass);
        let fresh = connect(&request).await;
        (first, second, fresh, looks.load(Ordering::Relaxed))
    });
    let words = "is the VIP 10.12.1.100 bound on its loopback?";
    for outcome in [&first, &second, &fresh] {
        assert!(outcome.result == Fail && outcome.detail.contains(words), "{outcome:?}");
    }
    assert!(second.detail.contains("answered on 127.0.0.1 0 s ago"), "{second:?}");
    assert_eq!(looks, 3, "a look, the check that passed, and a look");
}

#[test]
fn a_server_that_is_dead_is_not_blamed_on_the_vip() {
    if !root() {
        return without_the_privilege_to_mark_the_check_says_so();
    }
    let outcome =
        where_marked_packets_are_lost(|| async { connect(&through_the_vip(free_port())).await });
    assert_eq!((outcome.result, outcome.phase), (Fail, "connect"), "{outcome:?}");
    assert!(!outcome.detail.contains("bound on its loopback"), "{outcome:?}");
    assert!(outcome.detail.contains("and on 127.0.0.1 itself"), "{outcome:?}");
}

#[test]
fn a_ping_through_the_vip_carries_the_mark_and_names_it_too() {
    if !root() {
        return without_the_privilege_to_mark_the_check_says_so();
    }
    let (marked, plain) = where_marked_packets_are_lost(|| async {
        let ping = check(CheckKind::Ping { count: 1 }, 500);
        (run(&through_the_vip(0), &ping).await, run(&request(0), &ping).await)
    });
    assert_eq!(plain.result, Pass, "{plain:?}");
    assert_eq!((marked.result, marked.phase), (Fail, "echo"), "{marked:?}");
    assert!(marked.detail.contains("is the VIP 10.12.1.100 bound"), "{marked:?}");
}

/// All that can be seen without root.
fn without_the_privilege_to_mark_the_check_says_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(connect(&through_the_vip(free_port())));
    assert_eq!((outcome.result, outcome.phase), (Fail, "connect"), "{outcome:?}");
    assert!(outcome.detail.contains("cannot make a socket"), "{outcome:?}");
}
