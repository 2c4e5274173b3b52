//! The types of health checks and the fields that belong to each.

use regex::Regex;

use super::super::field::Field;
use super::super::model::{CheckKind, MllpMessage, OnBusy, Tls};
use super::super::problem::{At, Report, printable};
use super::super::raw_check::{RawCheck, RawTls, TlsField};
use super::super::scalar::Status;
use super::super::words::{Accept, CheckType, Expect, MllpMode, MssqlLevel};

const TYPES: [CheckType; 11] = [
    CheckType::Connect,
    CheckType::DicomEcho,
    CheckType::Mllp,
    CheckType::Http,
    CheckType::Https,
    CheckType::Ldap,
    CheckType::Ldaps,
    CheckType::Mssql,
    CheckType::Ping,
    CheckType::External,
    CheckType::None,
];

/// The fields of a type, besides those that all take.
fn fields(kind: CheckType) -> &'static [&'static str] {
    match kind {
        CheckType::Connect | CheckType::None => &[],
        CheckType::DicomEcho => &["calling_ae", "called_ae", "tls", "on_busy", "accept"],
        CheckType::Mllp => &["mode", "message", "expect", "tls"],
        CheckType::Http => &["path", "method", "host", "status", "body"],
        CheckType::Https => &["path", "method", "host", "status", "body", "tls"],
        CheckType::Ldap => &["bind_dn", "password_file", "base"],
        CheckType::Ldaps => &["bind_dn", "password_file", "base", "tls"],
        CheckType::Mssql => &["level"],
        CheckType::Ping => &["count"],
        CheckType::External => &["command", "user"],
    }
}

/// The fields that the check has, besides those that all take.
fn given(raw: &RawCheck) -> Vec<&'static str> {
    fn set<T>(field: &Field<T>) -> bool {
        !matches!(field, Field::Absent)
    }
    [
        ("calling_ae", set(&raw.calling_ae)),
        ("called_ae", set(&raw.called_ae)),
        ("tls", set(&raw.tls)),
        ("on_busy", set(&raw.on_busy)),
        ("accept", set(&raw.accept)),
        ("mode", set(&raw.mode)),
        ("message", set(&raw.message)),
        ("expect", set(&raw.expect)),
        ("path", set(&raw.path)),
        ("method", set(&raw.method)),
        ("host", set(&raw.host)),
        ("status", set(&raw.status)),
        ("body", set(&raw.body)),
        ("bind_dn", set(&raw.bind_dn)),
        ("password_file", set(&raw.password_file)),
        ("base", set(&raw.base)),
        ("level", set(&raw.level)),
        ("count", set(&raw.count)),
        ("command", set(&raw.command)),
        ("user", set(&raw.user)),
    ]
    .into_iter()
    .filter_map(|(name, set)| set.then_some(name))
    .collect()
}

/// Validates `type` and its fields.
pub fn kind(mut raw: RawCheck, at: &At<'_>, report: &mut Report) -> Option<CheckKind> {
    let what = "write the type of check, such as connect or dicom-echo";
    let kind = report.required(std::mem::take(&mut raw.kind), &at.key("type"), what)?;
    let allowed = fields(kind);
    for field in given(&raw) {
        if !allowed.contains(&field) {
            let owners: Vec<&str> = TYPES
                .into_iter()
                .filter(|kind| fields(*kind).contains(&field))
                .map(CheckType::word)
                .collect();
            let hint = match (kind, field) {
                (CheckType::Http, "tls") => "write type: https".into(),
                (CheckType::Ldap, "tls") => "write type: ldaps".into(),
                _ => format!("it belongs to {}", owners.join(", ")),
            };
            let kind = kind.word();
            report.error(&at.key(field), format!("a check of type {kind} has no {field}; {hint}"));
        }
    }
    match kind {
        CheckType::Connect => Some(CheckKind::Connect),
        CheckType::None => Some(CheckKind::None),
        CheckType::DicomEcho => Some(dicom(raw, at, report)),
        CheckType::Mllp => Some(mllp(raw, at, report)),
        CheckType::Http | CheckType::Https => Some(http(raw, kind, at, report)),
        CheckType::Ldap | CheckType::Ldaps => Some(ldap(raw, kind, at, report)),
        CheckType::Mssql => {
            let level = report.or(raw.level, &at.key("level"), MssqlLevel::Prelogin);
            Some(CheckKind::Mssql { prelogin: level == MssqlLevel::Prelogin })
        }
        CheckType::Ping => {
            let count = report.u32_or(raw.count, &at.key("count"), 1..=10, 1);
            Some(CheckKind::Ping { count })
        }
        CheckType::External => {
            let what = "write the absolute path of the script";
            let command = report.required(raw.command, &at.key("command"), what)?;
            let user = report.text(raw.user, &at.key("user"), 32);
            let user = user.unwrap_or_else(|| "nobody".into());
            Some(CheckKind::External { command: command.0, user })
        }
    }
}

fn dicom(raw: RawCheck, at: &At<'_>, report: &mut Report) -> CheckKind {
    if matches!(raw.called_ae, Field::Absent) {
        let message = "has no called_ae: ANY-SCP is asked for, which many servers reject";
        report.warn(at, message);
    }
    let calling_ae = ae_title(raw.calling_ae, &at.key("calling_ae"), report);
    let called_ae = ae_title(raw.called_ae, &at.key("called_ae"), report);
    let accept = report.or(raw.accept, &at.key("accept"), Accept::Echo);
    CheckKind::DicomEcho {
        calling_ae: calling_ae.unwrap_or_else(|| "MEDLB".into()),
        called_ae: called_ae.unwrap_or_else(|| "ANY-SCP".into()),
        tls: tls(raw.tls, &at.key("tls"), report),
        on_busy: report.or(raw.on_busy, &at.key("on_busy"), OnBusy::Up),
        accept_association: accept == Accept::Association,
    }
}

/// An AE title: PS3.5 6.2, value representation AE.
fn ae_title(raw: Field<String>, at: &At<'_>, report: &mut Report) -> Option<String> {
    let title = report.optional(raw, at)?;
    let wrong = if title.is_empty() || title.len() > 16 {
        format!("an AE title has 1 to 16 characters, `{}` has {}", printable(&title), title.len())
    } else if title.contains('\\') || !title.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        let title = printable(&title);
        format!("an AE title is plain ASCII without a backslash, which `{title}` is not")
    } else if title.trim() != title {
        "spaces around an AE title do not count; remove them".into()
    } else {
        return Some(title);
    };
    report.error(at, wrong);
    None
}

fn tls(raw: Field<TlsField>, at: &At<'_>, report: &mut Report) -> Option<Tls> {
    let details = match report.optional(raw, at)? {
        TlsField::Switch(false) => return None,
        TlsField::Switch(true) => RawTls::default(),
        TlsField::Details(details) => *details,
    };
    report.unknown::<RawTls>(&details.unknown, at);
    let halves =
        (matches!(details.cert_file, Field::Absent), matches!(details.key_file, Field::Absent));
    match halves {
        (true, false) => report.error(&at.key("cert_file"), "is missing; key_file needs it"),
        (false, true) => report.error(&at.key("key_file"), "is missing; cert_file needs it"),
        _ => {}
    }
    let cert = report.optional(details.cert_file, &at.key("cert_file"));
    let key = report.optional(details.key_file, &at.key("key_file"));
    Some(Tls {
        verify: report.or(details.verify, &at.key("verify"), true),
        ca_file: report.optional(details.ca_file, &at.key("ca_file")),
        client: cert.zip(key),
        server_name: report.text(details.server_name, &at.key("server_name"), 253),
    })
}

fn mllp(raw: RawCheck, at: &At<'_>, report: &mut Report) -> CheckKind {
    let details = !matches!((&raw.message, &raw.expect), (Field::Absent, Field::Absent));
    let default = if details { MllpMode::Message } else { MllpMode::Connect };
    let mode = report.or(raw.mode, &at.key("mode"), default);
    if details && mode == MllpMode::Connect {
        let message = "connect sends no message; write message, or remove message and expect";
        report.error(&at.key("mode"), message);
    }
    let text = report.optional(raw.message, &at.key("message"));
    let text = text.and_then(|text| hl7_message(&text, &at.key("message"), report));
    let expect = report.or(raw.expect, &at.key("expect"), Expect::Any);
    let tls = tls(raw.tls, &at.key("tls"), report);
    let message = (mode == MllpMode::Message)
        .then_some(MllpMessage { text, expect_aa: expect == Expect::Aa });
    CheckKind::Mllp { message, tls }
}

/// An HL7 v2 message whose MSH-7 and MSH-10 can be filled in, with CR between its segments.
fn hl7_message(text: &str, at: &At<'_>, report: &mut Report) -> Option<String> {
    let text = text.trim_end().replace("\r\n", "\r").replace('\n', "\r");
    let header = text.split('\r').next().unwrap_or_default();
    let separator = header.strip_prefix("MSH").and_then(|rest| rest.chars().next());
    let fields: Vec<&str> = separator.map(|s| header.split(s).collect()).unwrap_or_default();
    if fields.len() < 10 || text.contains(['\u{b}', '\u{1c}']) {
        let message = "must be an HL7 message without its MLLP frame, with an MSH segment of at \
                       least 10 fields: MSH|^~\\&|…";
        report.error(at, message);
        return None;
    }
    // fields[8] is MSH-9: MSH-1 is the separator itself.
    if ["ADT", "ORM", "ORU"].iter().any(|kind| fields[8].starts_with(kind)) {
        let message = format!(
            "sends a clinical message ({}) with every check; a query such as NMQ^N01 changes \
             nothing",
            printable(fields[8])
        );
        report.warn(at, message);
    }
    Some(text)
}

fn http(raw: RawCheck, kind: CheckType, at: &At<'_>, report: &mut Report) -> CheckKind {
    let path = report.optional(raw.path, &at.key("path")).unwrap_or_else(|| "/".into());
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        let path = printable(&path);
        let message = format!("must start with / and have no spaces (write %20), not `{path}`");
        report.error(&at.key("path"), message);
    }
    let method = report.optional(raw.method, &at.key("method")).unwrap_or_else(|| "GET".into());
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        let method = printable(&method);
        report.error(&at.key("method"), format!("must be GET, HEAD or the like, not `{method}`"));
    }
    let host = report.text(raw.host, &at.key("host"), 253);
    if let Some(host) = host.as_ref().filter(|host| !host.bytes().all(|b| b.is_ascii_graphic())) {
        let message = format!("`{}` cannot be a host name", printable(host));
        report.error(&at.key("host"), message);
    }
    let body = report.optional(raw.body, &at.key("body"));
    if let Some(Err(error)) = body.as_deref().map(Regex::new) {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        report.error(&at.key("body"), format!("is not a regular expression: {reason}"));
    }
    let status = report.or(raw.status, &at.key("status"), Status(vec![200..=399]));
    let tls = encrypted(raw.tls, kind == CheckType::Https, at, report);
    CheckKind::Http { tls, path, method, host, status: status.0, body }
}

fn ldap(raw: RawCheck, kind: CheckType, at: &At<'_>, report: &mut Report) -> CheckKind {
    let anonymous = matches!(raw.bind_dn, Field::Absent);
    let bind_dn = report.optional(raw.bind_dn, &at.key("bind_dn")).unwrap_or_default();
    match (anonymous || bind_dn.is_empty(), &raw.password_file) {
        // RFC 4513 5.1.2: a name without a password is no authentication at all.
        (false, Field::Absent) => report.error(
            &at.key("password_file"),
            "is missing; bind_dn needs it (without a password the server checks nothing)",
        ),
        (true, Field::Given(_)) => {
            report.error(&at.key("bind_dn"), "is missing; password_file needs it");
        }
        _ => {}
    }
    CheckKind::Ldap {
        bind_dn,
        password_file: report.optional(raw.password_file, &at.key("password_file")),
        base: report.optional(raw.base, &at.key("base")),
        tls: encrypted(raw.tls, kind == CheckType::Ldaps, at, report),
    }
}

/// `tls` of a type that is encrypted by its name.
fn encrypted(raw: Field<TlsField>, named: bool, at: &At<'_>, report: &mut Report) -> Option<Tls> {
    let default = Tls { verify: true, ca_file: None, client: None, server_name: None };
    match (named, raw) {
        (false, _) => None,
        (true, Field::Absent) => Some(default),
        (true, Field::Given(TlsField::Switch(false))) => {
            let message = "cannot be false for https or ldaps; write type: http or ldap";
            report.error(&at.key("tls"), message);
            Some(default)
        }
        (true, raw) => tls(raw, &at.key("tls"), report),
    }
}
