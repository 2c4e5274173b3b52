//! LDAP and LDAPS against slapd.

use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::testing::{
    Certificates, LOOPBACK, Peer, a_thousand, probe, probe_for, program, set_mode,
};
use crate::config::model::{CheckKind, Tls};
use crate::health::ProbeResult::{Fail, Pass};

const ADMIN: &str = "cn=admin,dc=clinic";
const PASSWORD: &str = "kein-Klartext-7";

fn slapd(scheme: &str, options: &str) -> Peer {
    Peer::listen("slapd", |port, dir| {
        let here = dir.display();
        let config = format!(
            "include /etc/ldap/schema/core.schema\npidfile {here}/pid\nargsfile {here}/args\n\
             modulepath /usr/lib/ldap\nmoduleload back_mdb\n{options}\n\
             database mdb\nsuffix \"dc=clinic\"\nrootdn \"{ADMIN}\"\nrootpw {PASSWORD}\n\
             directory {here}/db\naccess to * by users read by anonymous auth\n"
        );
        let file = dir.join("slapd.conf");
        std::fs::write(&file, config).unwrap();
        std::fs::create_dir(dir.join("db")).unwrap();
        let ldif = "dn: dc=clinic\nobjectClass: dcObject\nobjectClass: organization\ndc: clinic\n\
                    o: Clinic\n\ndn: cn=pacs,dc=clinic\nobjectClass: organizationalRole\ncn: pacs\n";
        std::fs::write(dir.join("data.ldif"), ldif).unwrap();
        let loaded = Command::new(program("slapadd"))
            .arg("-f")
            .arg(&file)
            .arg("-l")
            .arg(dir.join("data.ldif"))
            .output()
            .unwrap();
        assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
        let url = format!("{scheme}://127.0.0.1:{port}/");
        ["-d", "256", "-h", &url, "-f", &file.display().to_string()].map(String::from).into()
    })
}

fn kind(bind_dn: &str, password_file: Option<&Path>, base: Option<&str>) -> CheckKind {
    CheckKind::Ldap {
        tls: None,
        bind_dn: bind_dn.into(),
        password_file: password_file.map(Path::to_owned),
        base: base.map(str::to_owned),
    }
}

fn password(dir: &Path, text: &str) -> std::path::PathBuf {
    let file = dir.join(format!("password-{}", text.len()));
    std::fs::write(&file, text).unwrap();
    set_mode(&file, 0o600);
    file
}

#[tokio::test]
async fn bind_and_base_search_are_judged_by_their_result_codes() {
    let peer = slapd("ldap", "");
    let right = password(peer.dir.path(), &format!("{PASSWORD}\n"));
    let wrong = password(peer.dir.path(), "wrong");
    let empty = password(peer.dir.path(), "\n");
    let entry = Some("cn=pacs,dc=clinic");
    for (kind, result, phase, words) in [
        (kind("", None, None), Pass, "bind", "anonymous bind: resultCode 0"),
        (kind(ADMIN, Some(&right), None), Pass, "bind", "bind: resultCode 0"),
        (kind(ADMIN, Some(&right), entry), Pass, "search", "found \"cn=pacs,dc=clinic\""),
        (kind(ADMIN, Some(&right), Some("cn=no,dc=clinic")), Fail, "search", "resultCode 32"),
        (kind("", None, entry), Fail, "search", "search for \"cn=pacs,dc=clinic\""),
        (kind(ADMIN, Some(&wrong), None), Fail, "bind", "resultCode 49 (InvalidCredentials)"),
        (kind(ADMIN, Some(&empty), None), Fail, "bind", "bind anonymously"),
        (kind(ADMIN, None, None), Fail, "bind", "password_file"),
    ] {
        let outcome = probe(kind, peer.port).await;
        assert_eq!((outcome.result, outcome.phase), (result, phase), "{outcome:?}");
        assert!(outcome.detail.contains(words), "{outcome:?}");
        assert!(!format!("{outcome:?}").contains(PASSWORD), "{outcome:?}");
    }
    let log = peer.log();
    assert_eq!(log.matches("UNBIND").count(), 6, "every connection ends with unbind: {log}");
    assert!(!log.contains("connection lost"), "{log}");
}

#[tokio::test]
async fn a_password_file_that_others_can_read_is_refused() {
    let peer = slapd("ldap", "");
    let file = password(peer.dir.path(), PASSWORD);
    set_mode(&file, 0o644);
    let outcome = probe(kind(ADMIN, Some(&file), None), peer.port).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "bind"), "{outcome:?}");
    assert!(outcome.detail.contains("chmod 600"), "{outcome:?}");
    assert!(!peer.log().contains("BIND"), "the server was not bothered: {}", peer.log());
}

#[tokio::test]
async fn a_server_that_refuses_anonymous_binds_says_so() {
    let peer = slapd("ldap", "disallow bind_anon");
    let outcome = probe(kind("", None, None), peer.port).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "bind"), "{outcome:?}");
    assert!(outcome.detail.contains("resultCode 48 (InappropriateAuthentication)"), "{outcome:?}");
}

#[tokio::test]
async fn ldaps_verifies_the_certificate() {
    let certs = Certificates::make();
    let server = |name: &str| {
        let (cert, key) = (certs.text(&format!("{name}.pem")), certs.text(&format!("{name}.key")));
        slapd("ldaps", &format!("TLSCertificateFile {cert}\nTLSCertificateKeyFile {key}"))
    };
    let over = |with: Tls| {
        let mut kind = kind("", None, None);
        if let CheckKind::Ldap { tls, .. } = &mut kind {
            *tls = Some(with);
        }
        kind
    };
    let valid = server("valid");
    let outcome = probe(over(certs.tls()), valid.port).await;
    assert_eq!((outcome.result, outcome.phase), (Pass, "bind"), "{outcome:?} {}", valid.log());
    let expired = server("expired");
    let outcome = probe(over(certs.tls()), expired.port).await;
    assert_eq!((outcome.result, outcome.phase), (Fail, "tls"), "{outcome:?}");
    assert!(outcome.detail.contains("has expired"), "{outcome:?}");
}

#[tokio::test]
async fn what_is_not_ldap_is_told() {
    for (answer, words) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], ""),
        (b"\x30\x0C\x02\x01\x09\x61\x07\x0A\x01\x00\x04\x00\x04\x00", "not asked"),
        (b"", "closed the connection"),
    ] {
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 2048]).await.unwrap() > 0);
            stream.write_all(answer).await.unwrap();
        });
        let outcome = probe_for(kind("", None, None), port, 500).await;
        server.await.unwrap();
        assert_eq!((outcome.result, outcome.phase), (Fail, "bind"), "{outcome:?}");
        assert!(outcome.detail.contains(words), "{words}: {outcome:?}");
    }
}

/// What the process logs while a check with a password runs, at the most talkative level.
#[tokio::test]
async fn the_password_appears_in_no_log() {
    let peer = slapd("ldap", "");
    let file = password(peer.dir.path(), PASSWORD);
    let log = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::sync::Mutex::new(log.reopen().unwrap()))
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let outcome = probe(kind(ADMIN, Some(&file), None), peer.port).await;
    drop(guard);
    assert_eq!(outcome.result, Pass, "{outcome:?}");
    let text = std::fs::read_to_string(log.path()).unwrap();
    let hex: String = PASSWORD.bytes().map(|b| format!("{b:02x}")).collect();
    let list = format!("{:?}", PASSWORD.as_bytes());
    for form in [PASSWORD, &hex, list.trim_matches(['[', ']'])] {
        assert!(!text.contains(form), "{form} in {text}");
    }
}

#[tokio::test]
async fn a_thousand_binds_leave_no_lost_connection() {
    let peer = slapd("ldap", "");
    a_thousand(&kind("", None, None), peer.port).await;
    let log = peer.log();
    assert_eq!(log.matches("UNBIND").count(), 1000);
    assert!(!log.contains("connection lost"), "{log}");
}
