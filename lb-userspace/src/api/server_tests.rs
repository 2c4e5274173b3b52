use std::io::{Read, Write};

use super::*;
use crate::api::client::{Client, ClientError};

/// A daemon that answers every command with its debug form.
async fn start(path: &Path) -> tokio::task::JoinHandle<()> {
    let server = Server::bind(path, None).unwrap();
    let (sender, mut calls) = mpsc::channel::<Call>(8);
    tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            call.reply.send(protocol::answer(&format!("{:?}", call.command))).ok();
        }
    });
    tokio::spawn(server.serve(sender))
}

fn raw(path: &Path, bytes: &[u8]) -> String {
    let mut stream = StdStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // A refused request may be closed upon before all of it was sent.
    stream.write_all(bytes).ok();
    stream.shutdown(std::net::Shutdown::Write).ok();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok();
    reply
}

macro_rules! blocking {
    ($body:expr) => {
        tokio::task::spawn_blocking(move || $body).await.unwrap()
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_carries_many_requests() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/medlb.sock");
    start(&path).await;
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    blocking!({
        let mut client = Client::connect(&path).unwrap();
        assert_eq!(client.get::<String>(Command::Status).unwrap(), "Status");
        assert_eq!(client.get::<String>(Command::Stats).unwrap(), "Stats");
        let two = raw(&path, b"{\"command\":\"status\"}\n{\"command\":\"stats\"}\n");
        assert_eq!(two.lines().count(), 2, "{two}");
        // A request without its newline is complete when the client says no more.
        assert!(raw(&path, br#"{"command":"status"}"#).contains(r#""ok":true"#));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_and_endless_requests_are_refused_and_the_daemon_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("medlb.sock");
    start(&path).await;
    blocking!({
        assert!(raw(&path, b"GET / HTTP/1.1\r\n\r\n").contains("bad_request"));
        assert!(raw(&path, b"\xff\xfe\n").contains("bad_request"));
        let long = vec![b'x'; MAX_REQUEST * 2];
        assert!(raw(&path, &long).contains("longer than"));
        assert!(raw(&path, b"").is_empty());
        assert_eq!(
            Client::connect(&path).unwrap().get::<String>(Command::Status).unwrap(),
            "Status"
        );
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_say_nothing_hold_up_nobody_and_too_many_are_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("medlb.sock");
    start(&path).await;
    blocking!({
        let _silent: Vec<_> =
            (0..MAX_CLIENTS - 1).map(|_| StdStream::connect(&path).unwrap()).collect();
        let mut last = Client::connect(&path).unwrap();
        assert_eq!(last.get::<String>(Command::Status).unwrap(), "Status");
        match Client::connect(&path).unwrap().get::<String>(Command::Status) {
            Err(ClientError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::Busy),
            other => panic!("{other:?}"),
        }
    });
}

/// The daemon may say why and close before the request was written.
#[test]
fn a_reply_that_came_before_the_request_was_sent_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("medlb.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut client = Client::connect(&path).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let failure = Failure::new(FailureKind::Busy, "too many".to_owned());
    let mut reply = serde_json::to_vec(&Reply::from(Answer::Err(failure))).unwrap();
    reply.push(b'\n');
    stream.write_all(&reply).unwrap();
    drop(stream);
    match client.get::<String>(Command::Status) {
        Err(ClientError::Refused(failure)) => assert_eq!(failure.kind, FailureKind::Busy),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_living_daemon_is_recognised_and_a_dead_ones_socket_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("medlb.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists() && listening_pid(&path).is_none());
    let serving = start(&path).await;
    let message = Server::bind(&path, None).unwrap_err().to_string();
    let expected = format!("medlb is already running (pid {})", std::process::id());
    assert!(message.contains(&expected), "{message}");
    serving.abort();
    serving.await.unwrap_err();
    assert!(!path.exists(), "the socket goes with its server");
}

#[tokio::test]
async fn what_is_in_the_way_and_not_a_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    fs::write(&path, "data").unwrap();
    assert!(Server::bind(&path, None).unwrap_err().to_string().contains("not a socket"));
    assert_eq!(fs::read(&path).unwrap(), b"data");
    let long = dir.path().join("x".repeat(120));
    assert!(format!("{:#}", Server::bind(&long, None).unwrap_err()).contains("107"));
    let error = Server::bind(&dir.path().join("s"), Some("no-such-group-here")).unwrap_err();
    assert!(error.to_string().contains("groupadd"), "{error}");
    assert!(!dir.path().join("s").exists());
}

#[test]
fn no_daemon_is_told_apart_from_a_dead_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("medlb.sock");
    let message = Client::connect(&path).unwrap_err().to_string();
    assert!(message.contains("does not exist"), "{message}");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let message = Client::connect(&path).unwrap_err().to_string();
    assert!(message.contains("goes on forwarding"), "{message}");
}
