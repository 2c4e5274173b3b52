//! `connect` and `mssql`, and how every probe leaves a connection. No SQL Server can be had here:
//! the responder is a mock, written from MS-TDS.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::testing::{LOOPBACK, a_thousand, free_port, probe, probe_for};
use crate::config::model::CheckKind;
use crate::health::ProbeResult::{Fail, Pass};

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Accepts once, does something, and tells how the check ended the connection: Ok is FIN.
async fn serve_one<F>(
    listener: TcpListener,
    serve: impl FnOnce(TcpStream) -> F,
) -> std::io::Result<Vec<u8>>
where
    F: Future<Output = TcpStream>,
{
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = serve(stream).await;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(|_| rest)
}

#[tokio::test]
async fn connect_ends_with_fin_even_when_the_server_talks_all_the_while() {
    let (listener, port) = listener().await;
    let server = serve_one(listener, |mut stream| async move {
        for _ in 0..30 {
            stream.write_all(&[b'x'; 2000]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stream
    });
    let (outcome, left) = tokio::join!(probe(CheckKind::Connect, port), server);
    assert_eq!((outcome.result, outcome.phase), (Pass, "connect"), "{outcome:?}");
    assert_eq!(left.unwrap(), b"", "FIN, not RST");
}

#[tokio::test]
async fn connect_is_refused_or_times_out_in_words() {
    let outcome = probe(CheckKind::Connect, free_port()).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "connect"), "{outcome:?}");
    assert_eq!(outcome.detail, "connection refused");
    let outcome = probe(CheckKind::Connect, 0).await;
    assert!(outcome.detail.contains("give the check a `port`"), "{outcome:?}");
    // A backlog that is full lets SYNs go unanswered.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((LOOPBACK, 0).into()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(
            tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(address)).await,
        );
    }
    let outcome = probe_for(CheckKind::Connect, address.port(), 300).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "connect"), "{outcome:?}");
    assert_eq!(outcome.detail, "no answer within 300 ms");
    assert!(outcome.duration < Duration::from_millis(400), "{outcome:?}");
}

#[tokio::test]
async fn connect_fails_when_the_connection_is_reset_within_the_hold() {
    let (listener, port) = listener().await;
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let outcome = probe(CheckKind::Connect, port).await;
    server.await.unwrap();
    assert_eq!((outcome.result, outcome.phase), (Fail, "connect"), "{outcome:?}");
    assert!(outcome.detail.contains("reset"), "{outcome:?}");
}

#[tokio::test]
async fn none_always_passes() {
    let outcome = probe(CheckKind::None, free_port()).await;
    assert_eq!(outcome.result, Pass, "{outcome:?}");
}

#[tokio::test]
async fn a_thousand_connects_end_with_a_thousand_fins() {
    let (listener, port) = listener().await;
    let server = tokio::spawn(async move {
        let mut closes = Vec::new();
        for _ in 0..1000 {
            let (mut stream, _) = listener.accept().await.unwrap();
            closes.push(tokio::spawn(async move { stream.read(&mut [0; 8]).await }));
        }
        for close in closes {
            assert_eq!(close.await.unwrap().unwrap(), 0, "FIN without a byte");
        }
    });
    a_thousand(&CheckKind::Connect, port).await;
    server.await.unwrap();
}

/// An answer to PRELOGIN as SQL Server 2022 gives it, cut into packets of a given payload.
fn prelogin_answer(packet: usize) -> Vec<u8> {
    let mut payload = vec![0x00, 0, 0x15, 0, 6, 0x01, 0, 0x1B, 0, 1, 0x02, 0, 0x1C, 0, 1];
    payload.extend([0x03, 0, 0x1D, 0, 0, 0xFF]);
    payload.extend([16, 0, 0x03, 0xE8, 0, 0, 2, 0]);
    let mut bytes = Vec::new();
    let packets = payload.chunks(packet).collect::<Vec<_>>();
    for (number, part) in packets.iter().enumerate() {
        let last = u8::from(number + 1 == packets.len());
        let length = u16::try_from(part.len() + 8).unwrap().to_be_bytes();
        bytes.extend([
            0x04,
            last,
            length[0],
            length[1],
            0,
            0,
            u8::try_from(number + 1).unwrap(),
            0,
        ]);
        bytes.extend(*part);
    }
    bytes
}

async fn mssql_against(answer: Vec<u8>) -> (crate::health::Outcome, std::io::Result<Vec<u8>>) {
    let (listener, port) = listener().await;
    let server = serve_one(listener, |mut stream| async move {
        let mut request = [0; 41];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(request[..4], [0x12, 0x01, 0, 41], "one PRELOGIN packet");
        for byte in answer {
            stream.write_all(&[byte]).await.unwrap();
        }
        stream
    });
    let kind = CheckKind::Mssql { prelogin: true };
    tokio::join!(probe_for(kind, port, 600), server)
}

#[tokio::test]
async fn mssql_shows_the_version_and_leaves_with_fin() {
    for packet in [64, 7] {
        let (outcome, left) = mssql_against(prelogin_answer(packet)).await;
        assert_eq!((outcome.result, outcome.phase), (Pass, "prelogin"), "{outcome:?}");
        assert_eq!(outcome.detail, "SQL Server 16.0.1000");
        assert_eq!(left.unwrap(), b"");
    }
}

#[tokio::test]
async fn mssql_tells_what_is_no_sql_server() {
    for (answer, words) in [
        (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "not TDS: the answer starts with 48"),
        (vec![0x04, 1, 0, 3, 0, 0, 0, 0], "not TDS: a packet of 3 bytes"),
        (vec![0x04, 1, 0, 9, 0, 0, 1, 0, 0xFF], "no version"),
        (Vec::new(), "no pre-login answer within 600 ms"),
    ] {
        let (outcome, _) = mssql_against(answer).await;
        assert_eq!((outcome.result, outcome.phase), (Fail, "prelogin"), "{outcome:?}");
        assert!(outcome.detail.contains(words), "{outcome:?}");
    }
}
