//! HTTP and HTTPS against nginx.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::testing::{Certificates, LOOPBACK, Peer, a_thousand, free_port, probe, probe_for};
use crate::config::model::{CheckKind, Tls};
use crate::health::ProbeResult::{Fail, Pass};

fn nginx(servers: impl FnOnce(u16, &Path) -> String) -> Peer {
    Peer::listen("nginx", |port, dir| {
        let here = dir.display();
        let config = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log info;\n\
             events {{}}\nhttp {{ access_log {here}/access.log; client_body_temp_path {here}/b;\n\
             proxy_temp_path {here}/p; fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u;\n\
             scgi_temp_path {here}/s; root {here};\n{}\n}}\n",
            servers(port, dir)
        );
        std::fs::write(dir.join("nginx.conf"), config).unwrap();
        std::fs::write(dir.join("big"), vec![b'x'; 3 << 20]).unwrap();
        ["-c", "nginx.conf", "-p", &here.to_string(), "-e", "error.log"].map(String::from).into()
    })
}

fn plain() -> Peer {
    nginx(|port, _| {
        format!(
            "server {{ listen 127.0.0.1:{port}; server_name pacs.example;\n\
             location = / {{ return 200 'status: green, host $host'; }}\n\
             location = /method {{ return 200 $request_method; }}\n\
             location = /down {{ return 503; }} location = /moved {{ return 302 /; }} }}"
        )
    })
}

fn get(path: &str) -> CheckKind {
    CheckKind::Http {
        tls: None,
        path: path.into(),
        method: "GET".into(),
        host: None,
        status: vec![200..=399],
        body: None,
    }
}

/// The same check with a host and a body.
fn with(path: &str, with_host: Option<&str>, with_body: Option<&str>) -> CheckKind {
    let mut kind = get(path);
    if let CheckKind::Http { host, body, .. } = &mut kind {
        (*host, *body) = (with_host.map(str::to_owned), with_body.map(str::to_owned));
    }
    kind
}

fn https(with_tls: Tls) -> CheckKind {
    let mut kind = get("/");
    if let CheckKind::Http { tls, .. } = &mut kind {
        *tls = Some(with_tls);
    }
    kind
}

#[tokio::test]
async fn status_and_body_are_judged_and_the_host_is_sent() {
    let peer = plain();
    for (kind, result, phase, words) in [
        (get("/"), Pass, "status", "HTTP 200 OK"),
        (get("/moved"), Pass, "status", "HTTP 302 Found"),
        (get("/down"), Fail, "status", "HTTP 503 Service Unavailable, expected 200-399"),
        (get("/missing"), Fail, "status", "HTTP 404 Not Found"),
        (with("/", None, Some("green")), Pass, "body", "body matches"),
        (with("/", None, Some("host 127\\.0\\.0\\.1$")), Pass, "body", "body matches"),
        (with("/", Some("pacs.example"), Some("host pacs.example$")), Pass, "body", "matches"),
        (with("/", None, Some("^green")), Fail, "body", "does not match \"^green\""),
    ] {
        let outcome = probe(kind, peer.port).await;
        assert_eq!((outcome.result, outcome.phase), (result, phase), "{outcome:?}");
        assert!(outcome.detail.contains(words), "{outcome:?}");
    }
}

#[tokio::test]
async fn the_method_is_the_operators() {
    let peer = plain();
    for (name, result) in [("OPTIONS", Pass), ("HEAD", Fail)] {
        let mut kind = with("/method", None, Some("^OPTIONS$"));
        if let CheckKind::Http { method, .. } = &mut kind {
            *method = name.into();
        }
        let outcome = probe(kind, peer.port).await;
        assert_eq!(outcome.result, result, "a HEAD has no body: {outcome:?}");
    }
}

#[tokio::test]
async fn a_big_body_is_read_up_to_its_bound() {
    let peer = plain();
    let outcome = probe(with("/big", None, Some("^x{1000}")), peer.port).await;
    assert_eq!((outcome.result, outcome.phase), (Pass, "body"), "{outcome:?}");
    let outcome = probe(with("/big", None, Some("y")), peer.port).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "body"), "{outcome:?}");
}

#[tokio::test]
async fn a_thousand_requests_leave_nginx_without_an_error_or_an_open_connection() {
    let peer = plain();
    a_thousand(&with("/", None, Some("green")), peer.port).await;
    let log = |name: &str| std::fs::read_to_string(peer.dir.path().join(name)).unwrap();
    assert_eq!(log("access.log").matches("\" 200 ").count(), 1000);
    let errors = log("error.log");
    assert!(!errors.contains("client") && !errors.contains("reset"), "{errors}");
}

#[tokio::test]
async fn https_names_what_is_wrong_with_a_certificate() {
    let certs = Certificates::make();
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let names = ["valid", "expired", "other", "stranger"];
    let mut all = Vec::new();
    let peer = nginx(|first, _| {
        all.push(first);
        all.extend(ports);
        let servers = all.iter().zip(names).map(|(port, name)| {
            format!(
                "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {};\n\
                 ssl_certificate_key {}; location = / {{ return 200 ok; }} }}\n",
                certs.text(&format!("{name}.pem")),
                certs.text(&format!("{name}.key"))
            )
        });
        servers.collect()
    });
    let judge = [
        (0, Pass, "HTTP 200"),
        (1, Fail, "has expired"),
        (2, Fail, "is not for the host \"127.0.0.1\" but for"),
        (3, Fail, "unknown CA"),
    ];
    for (at, result, words) in judge {
        let outcome = probe(https(certs.tls()), all[at]).await;
        assert_eq!(outcome.result, result, "{}: {outcome:?} {}", names[at], peer.log());
        assert!(outcome.detail.contains(words), "{}: {outcome:?}", names[at]);
        assert_eq!(outcome.phase, if result == Pass { "status" } else { "tls" });
        let unverified = probe(https(Tls { verify: false, ..certs.tls() }), all[at]).await;
        assert_eq!(unverified.result, Pass, "{}: {unverified:?}", names[at]);
    }
    let named = Tls { server_name: Some("localhost".into()), ..certs.tls() };
    assert_eq!(probe(https(named), all[0]).await.result, Pass);
    let lost = Tls { ca_file: Some("/nonexistent/ca.pem".into()), ..certs.tls() };
    let outcome = probe(https(lost), all[0]).await;
    assert!(outcome.detail.contains("/nonexistent/ca.pem"), "{outcome:?}");
}

#[tokio::test]
async fn what_is_not_http_is_told() {
    for (answer, words) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..], "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "before"),
        (b"", "closed the connection"),
    ] {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 2048]).await.unwrap() > 0);
            stream.write_all(answer).await.unwrap();
        });
        let outcome = probe(with("/", None, Some("x")), port).await;
        server.await.unwrap();
        assert_eq!((outcome.result, outcome.phase), (Fail, "response"), "{outcome:?}");
        assert!(outcome.detail.contains(words), "{words}: {outcome:?}");
    }
}

#[tokio::test]
async fn silence_ends_at_the_time_out() {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let outcome = probe_for(get("/"), port, 300).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "response"), "{outcome:?}");
    assert_eq!(outcome.detail, "no HTTP answer within 300 ms");
    assert!(outcome.duration < Duration::from_millis(400), "{outcome:?}");
}
