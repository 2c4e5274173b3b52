//! MLLP against the engines of the packages `hl7` and `hl7apy`, and listeners that misbehave.

use tokio::net::TcpListener;

use super::testing::{Certificates, LOOPBACK, Peer, a_thousand, free_port, probe, probe_for};
use crate::config::model::{CheckKind, MllpMessage};
use crate::health::ProbeResult::{Fail, Pass};

fn hold() -> CheckKind {
    CheckKind::Mllp { message: None, tls: None }
}

/// The built-in query, or one to a receiving application that the peer obeys.
fn message(to: &str, expect_aa: bool) -> CheckKind {
    let text = format!("MSH|^~\\&|MEDLB||{to}||||NMQ^N01||P|2.4\rQRD||R|I|1|||1^RD|X|NST|X\r");
    let text = (!to.is_empty()).then_some(text);
    CheckKind::Mllp { message: Some(MllpMessage { text, expect_aa }), tls: None }
}

#[tokio::test]
async fn any_acknowledgement_of_our_message_passes_and_aa_alone_where_it_is_asked_for() {
    let mut peer = Peer::python("hl7_peer.py", &["hl7"]);
    for (to, any, strict, words) in [
        ("", Pass, Pass, "ACK AA"),
        ("AA", Pass, Pass, "ACK AA"),
        ("NOCR", Pass, Pass, "ACK AA"),
        ("DRIP", Pass, Pass, "ACK AA"),
        ("COMMIT", Pass, Pass, "ACK"),
        ("AE", Pass, Fail, "ACK AE"),
        ("AR", Pass, Fail, "ACK AR"),
        ("OTHER", Fail, Fail, "another message"),
        ("NOMSA", Fail, Fail, "no MSA"),
        ("GARBAGE", Fail, Fail, "not MLLP: it starts with 53"),
        ("HUGE", Fail, Fail, "longer than 64 KiB"),
        ("EOF", Fail, Fail, "closed the connection without an ACK"),
        ("NOTHING", Fail, Fail, "no ACK within 1500 ms"),
    ] {
        for (expect_aa, result) in [(false, any), (true, strict)] {
            let outcome = probe_for(message(to, expect_aa), peer.port, 1500).await;
            assert_eq!((outcome.result, outcome.phase), (result, "ack"), "{to}: {outcome:?}");
            assert!(outcome.detail.contains(words), "{to}: {outcome:?}");
        }
    }
    let counts = peer.counts();
    assert_eq!(counts["repeated"], 0, "every control id is unique: {counts}");
    assert_eq!(counts["trailing"], 0, "{counts}");
}

#[tokio::test]
async fn an_hl7apy_engine_understands_the_built_in_query() {
    let mut peer = Peer::python("hl7_peer.py", &["hl7apy"]);
    let outcome = probe(message("", true), peer.port).await;
    assert_eq!((outcome.result, outcome.detail.as_str()), (Pass, "ACK AA"), "{outcome:?}");
    let outcome = probe(message("AE", false), peer.port).await;
    assert_eq!((outcome.result, outcome.detail.as_str()), (Pass, "ACK AE"), "{outcome:?}");
    let counts = peer.counts();
    assert_eq!(counts["messages"], 2, "{counts}");
    assert_eq!(counts.get("refused"), None, "{counts}");
}

#[tokio::test]
async fn a_held_connection_is_enough_by_default() {
    let mut peer = Peer::python("hl7_peer.py", &["hl7"]);
    let outcome = probe(hold(), peer.port).await;
    assert_eq!((outcome.result, outcome.phase), (Pass, "hold"), "{outcome:?}");
    let counts = peer.counts();
    assert_eq!((&counts["opened"], &counts["without_message"]), (&1.into(), &1.into()), "{counts}");
    assert_eq!(counts.get("reset"), None, "{counts}");
}

#[tokio::test]
async fn a_listener_that_closes_or_resets_at_once_fails() {
    for reset in [false, true] {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            if reset {
                socket2::SockRef::from(&stream)
                    .set_linger(Some(std::time::Duration::ZERO))
                    .unwrap();
            }
        });
        let outcome = probe(hold(), port).await;
        server.await.unwrap();
        assert_eq!((outcome.result, outcome.phase), (Fail, "hold"), "{outcome:?}");
        let words = if reset { "reset" } else { "closed the connection at once" };
        assert!(outcome.detail.contains(words), "{outcome:?}");
    }
    let outcome = probe(hold(), free_port()).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "connect"), "{outcome:?}");
    assert_eq!(outcome.detail, "connection refused");
}

#[tokio::test]
async fn a_thousand_holds_and_messages_leave_no_reset_and_no_open_connection() {
    let mut peer = Peer::python("hl7_peer.py", &["hl7"]);
    a_thousand(&hold(), peer.port).await;
    a_thousand(&message("", true), peer.port).await;
    let counts = peer.counts();
    assert_eq!((&counts["opened"], &counts["messages"]), (&2000.into(), &1000.into()), "{counts}");
    assert_eq!(counts["repeated"], 0, "{counts}");
    assert_eq!(counts.get("reset"), None, "{counts}");
}

#[tokio::test]
async fn an_engine_behind_tls_is_held_and_asked_over_tls() {
    let certs = Certificates::make();
    let (cert, key) = (certs.text("valid.pem"), certs.text("valid.key"));
    let mut peer = Peer::python("hl7_peer.py", &["hl7", &cert, &key]);
    let over = |kind: CheckKind| match kind {
        CheckKind::Mllp { message, .. } => CheckKind::Mllp { message, tls: Some(certs.tls()) },
        other => other,
    };
    let outcome = probe(over(hold()), peer.port).await;
    assert_eq!((outcome.result, outcome.phase), (Pass, "hold"), "{outcome:?} {}", peer.log());
    let outcome = probe(over(message("", true)), peer.port).await;
    assert_eq!((outcome.result, outcome.detail.as_str()), (Pass, "ACK AA"), "{outcome:?}");
    let counts = peer.counts();
    assert_eq!((&counts["opened"], counts.get("reset")), (&2.into(), None), "{counts}");

    let kind = over(hold());
    let deaf = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let outcome = probe_for(kind, deaf.local_addr().unwrap().port(), 300).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "tls"), "{outcome:?}");
    assert_eq!(outcome.detail, "no TLS handshake within 300 ms");
}
