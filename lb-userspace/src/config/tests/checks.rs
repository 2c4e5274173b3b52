//! Health checks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::model::{CheckKind, MllpMessage, OnBusy, Tls};
use super::*;

const AT: &str = "health_checks.echo";

/// BASE with its check (line 5) replaced.
fn check(keys: &str) -> String {
    changed("{type: dicom-echo, called_ae: PACS}", &format!("{{{keys}}}"))
}

fn kind(keys: &str) -> CheckKind {
    good(&check(keys)).config.services[0].real_servers[0].health_check.kind.clone()
}

fn at(field: &str) -> String {
    format!("{AT}.{field}")
}

fn tls() -> Option<Tls> {
    Some(Tls { verify: true, ca_file: None, client: None, server_name: None })
}

#[test]
fn a_named_check_is_shared_and_a_server_can_have_its_own() {
    let text =
        changed("address: 10.0.0.3", "address: 10.0.0.3\n        health_check: {type: mssql}");
    let servers = good(&text).config.services[0].real_servers.clone();
    assert_eq!(servers[0].health_check.name.as_deref(), Some("echo"));
    assert_eq!(servers[1].health_check.kind, CheckKind::Mssql { prelogin: true });
    let servers = good(BASE).config.services[0].real_servers.clone();
    assert!(Arc::ptr_eq(&servers[0].health_check, &servers[1].health_check));
    let text = changed("health_check: echo", "health_check: none");
    let loaded = good(&text);
    assert_eq!(loaded.config.services[0].real_servers[0].health_check.kind, CheckKind::None);
    assert_eq!(loaded.warnings.len(), 1, "echo is not used");
    assert!(is(&loaded.warnings[0], AT, 5, "no virtual service uses this check"));
}

#[test]
fn timing_comes_from_the_check_then_from_the_defaults() {
    let text = check("type: connect, interval: 10s, fall: 9, port: 99, via: rip");
    let text =
        text.replace("maximum_flows: 262144", "defaults: {interval: 7s, timeout: 4s, rise: 5}");
    let check = good(&text).config.services[0].real_servers[0].health_check.clone();
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(10), Duration::from_secs(4)));
    assert_eq!((check.rise, check.fall, check.port, check.via_rip), (5, 9, Some(99), true));
}

#[test]
fn a_name_that_is_not_defined_suggests_one_that_is() {
    let text = changed("health_check: echo", "health_check: ehco");
    let errors = errors(&text);
    assert!(
        is(
            &errors[0],
            "virtual_services[0].health_check",
            11,
            "`ehco` is not in health_checks; did you mean `echo`?"
        ),
        "{errors:?}"
    );
    let text = changed("health_check: echo", "health_check: zzz");
    assert!(super::errors(&text)[0].message.contains("define it there"));
}

#[test]
fn a_wrong_named_check_is_reported_once() {
    error(&check("type: conect"), &at("type"), 5, "did you mean `connect`?");
    error(&check("type: connect, port: 0"), &at("port"), 5, "0 is too small");
    error(
        &changed("echo: {type: dicom-echo, called_ae: PACS}", "echo:"),
        AT,
        5,
        "is empty; write a check",
    );
}

#[test]
fn none_is_not_a_name() {
    let text = changed("echo: {", "none: {type: ping}\n  echo: {");
    let errors = errors(&text);
    assert!(is(&errors[0], "health_checks.none", 5, "choose another name"), "{errors:?}");
}

#[test]
fn fields_belong_to_types() {
    for (keys, field, needle) in [
        (
            "type: connect, called_ae: X",
            "called_ae",
            "a check of type connect has no called_ae; it belongs to dicom-echo",
        ),
        ("type: http, tls: true", "tls", "write type: https"),
        ("type: ldap, tls: true", "tls", "write type: ldaps"),
        ("type: ping, path: /", "path", "it belongs to http, https"),
        ("type: none, count: 3", "count", "it belongs to ping"),
    ] {
        let errors = errors(&check(keys));
        assert!(errors.len() == 1 && is(&errors[0], &at(field), 5, needle), "{errors:?}");
    }
    error(&check("type: https, tls: false"), &at("tls"), 5, "cannot be false");
}

#[test]
fn dicom_checks_are_read() {
    let defaults = CheckKind::DicomEcho {
        calling_ae: "MEDLB".into(),
        called_ae: "PACS".into(),
        tls: None,
        on_busy: OnBusy::Up,
        accept_association: false,
    };
    assert_eq!(kind("type: dicom-echo, called_ae: PACS"), defaults);
    let all = "type: dicom-echo, calling_ae: A B, called_ae: PACS, tls: true, on_busy: drain, accept: association";
    let expected = CheckKind::DicomEcho {
        calling_ae: "A B".into(),
        called_ae: "PACS".into(),
        tls: tls(),
        on_busy: OnBusy::Drain,
        accept_association: true,
    };
    assert_eq!(kind(all), expected);
    warning(&check("type: dicom-echo"), AT, 5, "ANY-SCP is asked for");
}

#[test]
fn ae_titles_are_dicoms() {
    for (title, needle) in [
        ("\"\"", "has 0"),
        ("ABCDEFGHIJKLMNOPQ", "an AE title has 1 to 16 characters, `ABCDEFGHIJKLMNOPQ` has 17"),
        ("'A\\B'", "without a backslash"),
        ("MÜNCHEN", "plain ASCII"),
        ("\"A\\tB\"", "which `A\\tB` is not"),
        ("\" A\"", "remove them"),
        ("12", "put it in quotes"),
    ] {
        error(
            &check(&format!("type: dicom-echo, called_ae: {title}")),
            &at("called_ae"),
            5,
            needle,
        );
    }
    good(&check("type: dicom-echo, called_ae: ABCDEFGHIJKLMNOP"));
}

#[test]
fn tls_is_a_switch_or_a_mapping() {
    let with = |tls: &str| check(&format!("type: mllp, tls: {tls}"));
    let CheckKind::Mllp { tls: Some(tls), .. } = kind(
        "type: mllp, tls: {verify: false, ca_file: /a, cert_file: /c, key_file: /k, server_name: x}",
    ) else {
        panic!("no TLS");
    };
    assert_eq!(tls.client, Some((PathBuf::from("/c"), PathBuf::from("/k"))));
    assert_eq!((tls.verify, tls.server_name.as_deref()), (false, Some("x")));
    error(&with("{cert_file: /c}"), &at("tls.key_file"), 5, "is missing; cert_file needs it");
    error(&with("{key_file: /c}"), &at("tls.cert_file"), 5, "is missing; key_file needs it");
    error(&with("{ca_file: c.pem}"), &at("tls.ca_file"), 5, "must be an absolute path");
    error(&with("on"), &at("tls"), 5, "must be true, false or a mapping");
    assert_eq!(kind("type: mllp, tls: false"), CheckKind::Mllp { message: None, tls: None });
}

#[test]
fn mllp_messages_are_hl7() {
    let kind_of = |keys: &str| match kind(&format!("type: mllp, {keys}")) {
        CheckKind::Mllp { message, .. } => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(kind_of("mode: connect"), None);
    assert_eq!(kind_of("mode: message"), Some(MllpMessage { text: None, expect_aa: false }));
    assert_eq!(kind_of("expect: AA"), Some(MllpMessage { text: None, expect_aa: true }));
    let text = "\"MSH|^~\\\\&|A|B|C|D|||NMQ^N01|1|P|2.5\\nQRD|1\\n\"";
    let message = kind_of(&format!("message: {text}")).unwrap().text.unwrap();
    assert_eq!(message, "MSH|^~\\&|A|B|C|D|||NMQ^N01|1|P|2.5\rQRD|1");
    let text = check("type: mllp, mode: connect, expect: AA");
    error(&text, &at("mode"), 5, "connect sends no message");
    error(&check("type: mllp, message: hello"), &at("message"), 5, "must be an HL7 message");
    error(&check("type: mllp, message: \"MSH|^~\""), &at("message"), 5, "at least 10 fields");
    let text = check("type: mllp, message: \"MSH|^~\\\\&|A|B|C|D|||ADT^A01|1|P|2.5\"");
    warning(&text, &at("message"), 5, "sends a clinical message (ADT^A01)");
}

#[test]
fn http_checks_are_read() {
    let CheckKind::Http { tls, path, method, host, status, body } = kind("type: http") else {
        panic!("not http");
    };
    assert_eq!((tls, path.as_str(), method.as_str(), host, body), (None, "/", "GET", None, None));
    assert_eq!(status, [200..=399]);
    let status_of = |text: &str| match kind(&format!("type: https, status: {text}")) {
        CheckKind::Http { status, tls, .. } => {
            assert_eq!(tls, self::tls());
            status
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(status_of("204"), [204..=204]);
    assert_eq!(status_of("200-299"), [200..=299]);
    assert_eq!(
        status_of("[200, 301-302, \"404,410\"]"),
        [200..=200, 301..=302, 404..=404, 410..=410]
    );
    for status in ["ok", "99", "600", "300-200", "[]", "{a: 1}", "2xx"] {
        let text = check(&format!("type: http, status: {status}"));
        error(&text, &at("status"), 5, "must be status codes such as 200 or 200-399");
    }
    error(&check("type: http, path: status"), &at("path"), 5, "must start with /");
    error(&check("type: http, path: \"/a b\""), &at("path"), 5, "write %20");
    error(&check("type: http, method: get"), &at("method"), 5, "must be GET, HEAD");
    error(&check("type: http, host: \"a b\""), &at("host"), 5, "cannot be a host name");
    error(
        &check("type: http, body: \"(\""),
        &at("body"),
        5,
        "is not a regular expression: unclosed group",
    );
}

#[test]
fn ldap_names_and_passwords_go_together() {
    let anonymous =
        CheckKind::Ldap { tls: None, bind_dn: String::new(), password_file: None, base: None };
    assert_eq!(kind("type: ldap"), anonymous);
    assert!(matches!(kind("type: ldaps"), CheckKind::Ldap { tls: Some(_), .. }));
    error(
        &check("type: ldap, bind_dn: cn=x"),
        &at("password_file"),
        5,
        "is missing; bind_dn needs it",
    );
    error(
        &check("type: ldap, password_file: /p"),
        &at("bind_dn"),
        5,
        "is missing; password_file needs it",
    );
    good(&check("type: ldap, bind_dn: cn=x, password_file: /p, base: dc=x"));
}

#[test]
fn the_other_types_are_read() {
    assert_eq!(kind("type: connect"), CheckKind::Connect);
    assert_eq!(kind("type: none"), CheckKind::None);
    assert_eq!(kind("type: mssql, level: connect"), CheckKind::Mssql { prelogin: false });
    let command = |words: &[&str], user: &str| CheckKind::External {
        command: words.iter().map(ToString::to_string).collect(),
        user: user.into(),
    };
    assert_eq!(
        kind("type: external, command: /bin/x -a 'b c'"),
        command(&["/bin/x", "-a", "b c"], "nobody")
    );
    assert_eq!(
        kind("type: external, command: [/bin/x, b c], user: medlb"),
        command(&["/bin/x", "b c"], "medlb")
    );
    error(&check("type: external"), &at("command"), 5, "is missing; write the absolute path");
    error(&check("type: external, command: x.sh"), &at("command"), 5, "absolute path, not `x.sh`");
    error(
        &check("type: external, command: \"/x 'a\""),
        &at("command"),
        5,
        "a quote that is not closed",
    );
    error(&check("type: external, command: \"\""), &at("command"), 5, "must not be empty");
    error(&check("type: ping, count: 11"), &at("count"), 5, "11 is too large; it must be 1 to 10");
}

#[test]
fn a_ping_on_a_tcp_service_is_a_warning() {
    let at = "virtual_services[0].health_check";
    warning(&check("type: ping"), at, 11, "ping tells that the host is up");
    let udp = check("type: ping").replace("ports: 104", "ports: 104\n    protocol: udp");
    assert_eq!(good(&udp).warnings, []);
    let own = changed("address: 10.0.0.3", "address: 10.0.0.3\n        health_check: {type: ping}");
    warning(&own, "virtual_services[0].real_servers[1].health_check", 17, "ping tells");
}

#[test]
fn an_interval_shorter_than_the_timeout_is_a_warning() {
    warning(
        &check("type: connect, interval: 2s"),
        &at("interval"),
        5,
        "the interval (2s) is shorter than the timeout (3s)",
    );
    warning(
        &check("type: connect, timeout: 7s"),
        &at("interval"),
        5,
        "the interval (6s) is shorter than the timeout (7s)",
    );
    good(&check("type: connect, interval: 3s"));
}

#[test]
fn a_tcp_check_of_a_udp_service_is_a_warning_unless_it_has_a_port() {
    let udp = |keys: &str| check(keys).replace("ports: 104", "ports: 104\n    protocol: udp");
    warning(
        &udp("type: connect"),
        "virtual_services[0].health_check",
        12,
        "checked over TCP on port 104",
    );
    assert_eq!(good(&udp("type: connect, port: 80")).warnings, []);
    let every = check("type: connect").replace("ports: 104", "ports: \"*\"");
    warning(&every, "virtual_services[0].health_check", 11, "connects to port 1; give it a `port`");
}
