//! C-ECHO against dcmtk, pynetdicom and listeners that misbehave.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::testing::{Certificates, LOOPBACK, Peer, a_thousand, echo, free_port, probe, probe_for};
use crate::config::model::{CheckKind, OnBusy, Tls};
use crate::health::ProbeResult::{Busy, Fail, Pass};

fn storescp(extra: &[&str]) -> Peer {
    Peer::listen("storescp", |port, _| {
        let mut arguments: Vec<String> = ["-v", "-dhl", "-aet", "STORE"].map(String::from).into();
        arguments.extend(extra.iter().map(ToString::to_string));
        arguments.push(port.to_string());
        arguments
    })
}

#[tokio::test]
async fn storescp_answers_and_sees_a_released_association() {
    let peer = storescp(&[]);
    let outcome = probe(echo("STORE", None), peer.port).await;
    assert_eq!((outcome.result, outcome.phase), (Pass, "echo"), "{outcome:?}");
    assert_eq!(outcome.detail, "C-ECHO-RSP 0000H");
    let log = peer.log();
    assert!(log.contains("Association Release"), "{log}");
    assert!(!log.contains("Abort") && !log.contains("Failed"), "{log}");
}

#[tokio::test]
async fn storescp_that_refuses_is_a_failure_with_its_reason() {
    let peer = storescp(&["--refuse"]);
    let outcome = probe(echo("STORE", None), peer.port).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "associate"), "{outcome:?}");
    assert!(outcome.detail.starts_with("A-ASSOCIATE-RJ"), "{outcome:?}");
}

#[tokio::test]
async fn dcmqrscp_names_the_ae_title_it_does_not_know() {
    let peer = Peer::listen("dcmqrscp", |port, dir| {
        let config = format!(
            "NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n\
             HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n\
             AETable BEGIN\nARCHIVE {} RW (9, 1024mb) ANY\nAETable END\n",
            dir.display()
        );
        let file = dir.join("dcmqrscp.cfg");
        std::fs::write(&file, config).unwrap();
        ["-v", "-c", &file.display().to_string()].map(String::from).into()
    });
    let good = probe(echo("ARCHIVE", None), peer.port).await;
    assert_eq!((good.result, good.phase), (Pass, "echo"), "{good:?} {}", peer.log());
    let bad = probe(echo("NOBODY", None), peer.port).await;
    assert_eq!((bad.result, bad.phase), (Fail, "associate"), "{bad:?}");
    assert!(bad.detail.contains("called AE \"NOBODY\" not recognized"), "{bad:?}");
    assert!(bad.detail.contains("the check is misconfigured"), "{bad:?}");
}

#[tokio::test]
async fn a_worklist_server_answers() {
    let peer = Peer::listen("wlmscpfs", |port, dir| {
        std::fs::create_dir(dir.join("WORKLIST")).unwrap();
        std::fs::write(dir.join("WORKLIST/lockfile"), "").unwrap();
        let dir = dir.display().to_string();
        ["-v", "-dfp", &dir, &port.to_string()].map(String::from).into()
    });
    let outcome = probe(echo("WORKLIST", None), peer.port).await;
    assert_eq!((outcome.result, outcome.phase), (Pass, "echo"), "{outcome:?} {}", peer.log());
}

#[tokio::test]
async fn orthanc_answers() {
    let http = free_port();
    let peer = Peer::listen("Orthanc", |port, dir| {
        let config = serde_json::json!({
            "Name": "medlb-test", "StorageDirectory": dir.join("db"), "IndexDirectory": dir.join("db"),
            "DicomPort": port, "DicomAet": "ORTHANC", "DicomCheckCalledAet": true,
            "HttpPort": http, "HttpServerEnabled": false, "Plugins": []
        });
        let file = dir.join("orthanc.json");
        std::fs::write(&file, config.to_string()).unwrap();
        vec![file.display().to_string()]
    });
    let good = probe(echo("ORTHANC", None), peer.port).await;
    assert_eq!((good.result, good.phase), (Pass, "echo"), "{good:?} {}", peer.log());
    let bad = probe(echo("ANOTHER", None), peer.port).await;
    assert_eq!((bad.result, bad.phase), (Fail, "associate"), "{bad:?} {}", peer.log());
}

#[tokio::test]
async fn dicom_over_tls_names_what_is_wrong_with_a_certificate() {
    let certs = Certificates::make();
    let server = |name: &str| {
        let (key, cert) = (certs.text(&format!("{name}.key")), certs.text(&format!("{name}.pem")));
        storescp(&["+tls", &key, &cert, "-ic"])
    };
    let other_name = |name: &str| Tls { server_name: Some(name.into()), ..certs.tls() };
    let valid = server("valid");
    for tls in [certs.tls(), other_name("localhost")] {
        let outcome = probe(echo("STORE", Some(tls)), valid.port).await;
        assert_eq!((outcome.result, outcome.phase), (Pass, "echo"), "{outcome:?}");
    }
    let log = valid.log();
    assert_eq!(log.matches("Association Release").count(), 2, "{log}");
    let wrong = probe(echo("STORE", Some(other_name("pacs.example"))), valid.port).await;
    assert_eq!((wrong.result, wrong.phase), (Fail, "tls"), "{wrong:?}");
    assert!(wrong.detail.contains("not for the host \"pacs.example\""), "{wrong:?}");

    for (name, words) in [("expired", "expired"), ("stranger", "unknown CA"), ("other", "host")] {
        let peer = server(name);
        let outcome = probe(echo("STORE", Some(certs.tls())), peer.port).await;
        assert_eq!((outcome.result, outcome.phase), (Fail, "tls"), "{name}: {outcome:?}");
        assert!(outcome.detail.contains(words), "{name}: {outcome:?}");
        let unverified = Tls { verify: false, ..certs.tls() };
        let outcome = probe(echo("STORE", Some(unverified)), peer.port).await;
        assert_eq!(outcome.result, Pass, "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_sent_and_its_key_must_be_kept_safe() {
    let certs = Certificates::make();
    let (key, cert, ca) = (certs.text("valid.key"), certs.text("valid.pem"), certs.text("ca.pem"));
    let peer = storescp(&["+tls", &key, &cert, "-rc", "+cf", &ca]);
    let without = probe(echo("STORE", Some(certs.tls())), peer.port).await;
    assert_eq!(without.result, Fail, "{without:?}");
    assert!(without.detail.to_lowercase().contains("certificate"), "{without:?}");

    let client = Some((certs.path("client.pem"), certs.path("client.key")));
    let with = || echo("STORE", Some(Tls { client: client.clone(), ..certs.tls() }));
    let outcome = probe(with(), peer.port).await;
    assert_eq!(outcome.result, Pass, "{outcome:?}");
    super::testing::set_mode(&certs.path("client.key"), 0o644);
    let outcome = probe(with(), peer.port).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "tls"), "{outcome:?}");
    assert!(outcome.detail.contains("chmod 600"), "{outcome:?}");
}

#[tokio::test]
async fn plain_dicom_to_a_tls_port_and_tls_to_a_plain_one_are_told_apart() {
    let certs = Certificates::make();
    let tls = storescp(&["+tls", &certs.text("valid.key"), &certs.text("valid.pem"), "-ic"]);
    let outcome = probe_for(echo("STORE", None), tls.port, 2000).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "associate"), "{outcome:?}");
    let plain = storescp(&[]);
    let outcome = probe_for(echo("STORE", Some(certs.tls())), plain.port, 2000).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "tls"), "{outcome:?}");
}

#[tokio::test]
async fn every_rejection_is_judged_by_the_table_and_said_in_words() {
    let peer = Peer::python("dicom_peer.py", &[]);
    for (title, result, words) in [
        ("RJ_1_1_1", Fail, "no reason given (permanent)"),
        ("RJ_1_1_2", Fail, "application context name not supported"),
        (
            "RJ_1_1_3",
            Fail,
            "calling AE \"LOADBALANCER\" not recognized (the check is misconfigured",
        ),
        ("RJ_1_1_7", Fail, "called AE \"RJ_1_1_7\" not recognized (the check is misconfigured"),
        ("RJ_1_2_1", Fail, "no reason given by the service provider"),
        ("RJ_1_2_2", Fail, "protocol version not supported"),
        ("RJ_1_3_1", Busy, "temporary congestion (permanent)"),
        ("RJ_1_3_2", Busy, "local limit exceeded (permanent)"),
        ("RJ_2_1_1", Busy, "no reason given (transient)"),
        ("RJ_2_1_2", Busy, "application context name not supported (transient)"),
        ("RJ_2_1_3", Fail, "calling AE \"LOADBALANCER\" not recognized"),
        ("RJ_2_1_7", Fail, "called AE \"RJ_2_1_7\" not recognized"),
        ("RJ_2_2_1", Busy, "no reason given by the service provider (transient)"),
        ("RJ_2_2_2", Busy, "protocol version not supported (transient)"),
        ("RJ_2_3_1", Busy, "temporary congestion (transient)"),
        ("RJ_2_3_2", Busy, "local limit exceeded (transient)"),
    ] {
        let outcome = probe(echo(title, None), peer.port).await;
        assert_eq!((outcome.result, outcome.phase), (result, "associate"), "{title}: {outcome:?}");
        assert!(outcome.detail.contains(words), "{title}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_goes_wrong_after_the_connection_is_named_with_its_phase() {
    let mut peer = Peer::python("dicom_peer.py", &[]);
    for (title, phase, words) in [
        ("NOCTX", "associate", "presentation context refused: abstract syntax not supported"),
        ("ST_0110", "echo", "C-ECHO-RSP 0110H"),
        ("ST_0122", "echo", "C-ECHO-RSP 0122H"),
        ("ABORT_A", "associate", "A-ABORT"),
        ("ABORT_E", "echo", "A-ABORT"),
        ("MUTE_A", "associate", "no A-ASSOCIATE-AC within 700 ms"),
        ("MUTE_E", "echo", "no C-ECHO-RSP within 700 ms"),
    ] {
        let outcome = probe_for(echo(title, None), peer.port, 700).await;
        assert_eq!((outcome.result, outcome.phase), (Fail, phase), "{title}: {outcome:?}");
        assert!(outcome.detail.contains(words), "{title}: {outcome:?}");
        assert!(outcome.duration < Duration::from_millis(900), "{title}: {outcome:?}");
    }
    // A refused context and a bad status end in a release; the rest does not.
    let counts = peer.counts();
    assert_eq!(counts["released"], 3, "{counts}");
}

#[tokio::test]
async fn an_association_alone_is_enough_where_the_operator_says_so() {
    let peer = Peer::python("dicom_peer.py", &[]);
    for title in ["NOCTX", "ST_0110", "ECHO"] {
        let mut kind = echo(title, None);
        if let CheckKind::DicomEcho { accept_association, on_busy, .. } = &mut kind {
            (*accept_association, *on_busy) = (true, OnBusy::Down);
        }
        let outcome = probe(kind, peer.port).await;
        assert_eq!((outcome.result, outcome.phase), (Pass, "associate"), "{title}: {outcome:?}");
    }
}

#[tokio::test]
async fn one_byte_at_a_time_is_as_good_as_any_answer() {
    let mut peer = Peer::python("dicom_peer.py", &[]);
    let outcome = probe(echo("DRIP", None), peer.port).await;
    assert_eq!((outcome.result, outcome.phase), (Pass, "echo"), "{outcome:?}");
    assert_eq!(peer.counts()["released"], 1);
}

#[tokio::test]
async fn a_release_without_an_answer_does_not_spoil_the_success_nor_hold_it_up_for_long() {
    let peer = Peer::python("dicom_peer.py", &[]);
    let started = Instant::now();
    let outcome = probe(echo("MUTE_R", None), peer.port).await;
    assert_eq!(outcome.result, Pass, "{outcome:?}");
    // The wait of one second for the release is not part of the outcome, and not much longer.
    let release = started.elapsed() - outcome.duration;
    assert!(release >= Duration::from_millis(900), "{release:?}: {outcome:?}");
    assert!(release < Duration::from_secs(20), "{release:?}: {outcome:?}");
}

/// Answers each connection with these bytes after the request, and keeps what it got after them.
async fn answer_with(bytes: &'static [u8]) -> (u16, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut scratch = [0; 4096];
        assert!(stream.read(&mut scratch).await.unwrap() > 0);
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        rest
    });
    (port, task)
}

#[tokio::test]
async fn a_server_that_is_not_dicom_is_recognized() {
    let (port, peer) = answer_with(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let outcome = probe(echo("STORE", None), port).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "associate"), "{outcome:?}");
    assert_eq!(outcome.detail, "not DICOM: the answer starts with 48 54 54 50 2F 31 2E 31");
    assert!(peer.await.unwrap().is_empty(), "no A-ABORT to what is not DICOM");
}

#[tokio::test]
async fn protocol_errors_are_answered_with_an_abort() {
    for bytes in [
        &b"\x06\0\0\0\0\x04\0\0\0\0"[..], // A-RELEASE-RP instead of A-ASSOCIATE-AC
        &b"\x04\0\0\x01\0\0\0\0\0\0"[..], // a P-DATA-TF of 64 KiB
        &b"\x02\0\0\0\0\x08\0\x01\0\0\0\0\0\0"[..], // an A-ASSOCIATE-AC that is cut off
    ] {
        let (port, peer) = answer_with(bytes).await;
        let outcome = probe(echo("STORE", None), port).await;
        assert_eq!((outcome.result, outcome.phase), (Fail, "associate"), "{outcome:?}");
        assert_eq!(peer.await.unwrap().first(), Some(&7), "A-ABORT after {outcome:?}");
    }
}

#[tokio::test]
async fn a_rejection_outside_the_standard_is_a_rejection_still() {
    let (port, _peer) = answer_with(b"\x03\0\0\0\0\x04\0\x01\x07\x09").await;
    let outcome = probe(echo("STORE", None), port).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "associate"), "{outcome:?}");
    assert!(outcome.detail.contains("source 7, reason 9"), "{outcome:?}");
}

#[tokio::test]
async fn a_thousand_echoes_leave_no_broken_association_and_no_open_connection() {
    let mut peer = Peer::python("dicom_peer.py", &[]);
    a_thousand(&echo("ECHO", None), peer.port).await;
    let counts = peer.counts();
    assert_eq!((&counts["released"], &counts["opened"]), (&1000.into(), &1000.into()), "{counts}");
    assert_eq!(counts.get("aborted"), None, "{counts}");
}

#[tokio::test]
async fn a_thousand_echoes_over_tls_leave_no_broken_association_in_the_log_of_storescp() {
    let certs = Certificates::make();
    let store = storescp(&["+tls", &certs.text("valid.key"), &certs.text("valid.pem"), "-ic"]);
    a_thousand(&echo("STORE", Some(certs.tls())), store.port).await;
    let log = store.log();
    assert_eq!(log.matches("Association Release").count(), 1000, "{log}");
    for bad in ["Abort", "peer closed", "Failed", "E: ", "W: "] {
        assert!(!log.contains(bad), "{bad} in {log}");
    }
}
