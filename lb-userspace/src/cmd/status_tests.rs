use super::*;
use crate::api::model::{Interface, LastCheck};

fn real(label: &str, health: &str, admin: &str, effective: &str) -> RealServer {
    RealServer {
        label: label.into(),
        address: "10.12.1.110".into(),
        port: None,
        weight: 100,
        health: health.into(),
        health_count: 0,
        admin: admin.into(),
        effective: effective.into(),
        active_connections: 2,
        last_check: Some(LastCheck {
            at: "2026-11-20T10:00:00Z".into(),
            result: "pass".into(),
            phase: "echo".into(),
            detail: "C-ECHO-RSP 0000H".into(),
            duration_ms: 3.1,
        }),
        changed_at: Some("2026-11-20T09:59:00Z".into()),
        path_problem: None,
    }
}

fn status(state: &str, real_servers: Vec<RealServer>) -> Status {
    Status {
        version: "0.1.0".into(),
        pid: 1,
        uptime_s: 12,
        config_hash: String::new(),
        config_path: String::new(),
        heartbeat_age_ms: 8,
        interfaces: vec![Interface { name: "eth0".into(), xdp_mode: "native".into() }],
        services: vec![Service {
            label: "DICOM".into(),
            address: "10.12.1.100".into(),
            ports: "104,11112".into(),
            protocol: "tcp".into(),
            forwarding_method: "dr".into(),
            scheduler: "wlc".into(),
            state: state.into(),
            active_connections: 2,
            using_fallback: state == "red",
            real_servers,
        }],
        notes: vec![],
    }
}

#[test]
fn monitoring_gets_a_line_and_a_code_for_each_colour() {
    let up = || real("A", "up", "online", "in_rotation");
    let (line, code) = check_line(&status("green", vec![up()]));
    assert_eq!(code, 0);
    assert_eq!(line, "MEDLB OK - 1 services green | green=1 yellow=0 red=0 connections=2");
    let drained = real("B", "up", "drain", "draining");
    let (line, code) = check_line(&status("yellow", vec![up(), drained]));
    assert_eq!(code, 1);
    assert!(line.starts_with("MEDLB WARNING - DICOM yellow (B drain) |"), "{line}");
    let down = real("A|x", "down", "online", "out");
    let (line, code) = check_line(&status("red", vec![down]));
    assert_eq!(code, 2);
    assert!(line.starts_with("MEDLB CRITICAL - DICOM red, using the fallback server"), "{line}");
    assert_eq!(line.matches('|').count(), 1, "{line}");
}

#[test]
fn people_see_address_state_and_the_last_check_in_words() {
    let now = humantime::parse_rfc3339("2026-11-20T10:04:00Z").unwrap();
    let mut falling = real("DICOM2", "falling", "online", "in_rotation");
    falling.health_count = 2;
    let status = status("green", vec![real("DICOM1", "up", "online", "in_rotation"), falling]);
    let text = text(&status, Paint::plain(), now);
    assert!(text.contains("DICOM  green  10.12.1.100 tcp port 104,11112  dr wlc"), "{text}");
    assert!(text.contains("falling 2"), "{text}");
    assert!(text.contains("5m"), "{text}");
    assert!(text.contains("echo: C-ECHO-RSP 0000H (3.1 ms)"), "{text}");
    assert!(!text.contains('\u{1b}'));
}
