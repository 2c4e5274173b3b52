//! Notations, defaults, global settings, outbound rules.

use std::time::Duration;

use super::super::model::{Interface, XdpMode};
use super::*;

const S: &str = "virtual_services[0]";

/// BASE with keys put before the service's ports (line 9); one line each.
fn service(keys: &str) -> String {
    changed("    ports: 104", &format!("    {keys}\n    ports: 104"))
}

#[test]
fn defaults_are_those_of_the_manual() {
    let config = good("interfaces: [eth0]").config;
    let global = &config.global;
    assert_eq!(global.socket.to_str(), Some("/run/medlb/medlb.sock"));
    assert_eq!(global.state_dir.to_str(), Some("/var/lib/medlb"));
    assert_eq!(global.pin_dir.to_str(), Some("/sys/fs/bpf/medlb"));
    assert_eq!((global.maximum_flows, global.maximum_half_open), (262_144, 65_536));
    assert_eq!(global.snat_ports, 61000..=65535);
    let config = good(&changed("    health_check: echo\n", "")).config;
    let service = &config.services[0];
    assert_eq!(service.idle_timeout, Duration::from_secs(7440));
    assert_eq!(service.udp_idle_timeout, Duration::from_secs(300));
    assert!(service.on_down.reset_established && !service.on_down.keep_persistence);
    assert!(service.enabled && service.manage_address && !service.drain_keep_persistent);
    assert_eq!(service.persistence, None);
    let server = &service.real_servers[0];
    assert_eq!((server.weight, server.port, server.backup), (100, None, false));
    let check = &server.health_check;
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(6), Duration::from_secs(3)));
    assert_eq!((check.rise, check.fall, check.port, check.via_rip), (2, 3, None, false));
}

#[test]
fn no_services_is_a_warning() {
    let warnings = good("interfaces: [eth0]").warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!((warnings[0].path.as_str(), warnings[0].line), ("virtual_services", None));
    assert!(warnings[0].message.contains("no virtual services"));
}

#[test]
fn durations_are_read_in_every_notation() {
    for (text, millis) in [
        ("500ms", 500),
        ("6s", 6_000),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
        ("1h30m", 5_400_000),
        ("3600", 3_600_000),
        ("\"3600\"", 3_600_000),
        ("1.5", 1_500),
        ("0.5s", 500),
    ] {
        let text = changed(
            "maximum_flows: 262144",
            &format!("defaults: {{interval: {text}, timeout: 10ms}}"),
        );
        let service = &good(&text).config.services[0];
        let interval = service.real_servers[0].health_check.interval;
        assert_eq!(interval, Duration::from_millis(millis), "{text}");
    }
}

#[test]
fn wrong_durations_are_errors() {
    for (text, needle) in [
        ("soon", "must be a duration such as 500ms"),
        ("6 s", "must be a duration"),
        ("-5", "must be a duration"),
        ("6S", "must be a duration"),
        ("1h30", "must be a duration"),
        ("\"\"", "must be a duration"),
        (".nan", "must be a duration"),
        (".inf", "longer than ten years"),
        ("[6s]", "must be a duration"),
        ("9999999d", "longer than ten years"),
        ("0", "0s is too short; it must be 100ms to 1d"),
        ("2d", "2d is too long; it must be 100ms to 1d"),
    ] {
        let text = changed("maximum_flows: 262144", &format!("defaults: {{interval: {text}}}"));
        error(&text, "global.defaults.interval", 3, needle);
    }
}

#[test]
fn ports_are_read_in_every_notation() {
    for (text, ranges, shown) in [
        ("104", vec![104..=104], "104"),
        ("\"104\"", vec![104..=104], "104"),
        ("104,11112", vec![104..=104, 11112..=11112], "104,11112"),
        ("\"80, 443 ,5014-5019\"", vec![80..=80, 443..=443, 5014..=5019], "80,443,5014-5019"),
        ("[443, \"80,81\"]", vec![80..=81, 443..=443], "443,80,81"),
        ("5021,5022,5020", vec![5020..=5022], "5021,5022,5020"),
        ("\"*\"", vec![1..=65535], "*"),
        ("[\"*\"]", vec![1..=65535], "*"),
        ("65535", vec![65535..=65535], "65535"),
    ] {
        let service = &good(&changed("ports: 104", &format!("ports: {text}"))).config.services[0];
        assert_eq!((&service.ports, service.ports_text.as_str()), (&ranges, shown), "{text}");
    }
}

#[test]
fn wrong_ports_are_errors() {
    for (text, needle) in [
        ("0", "`0` is out of range"),
        ("65536", "`65536` is out of range; ports are 1 to 65535"),
        ("9999999999999999999", "is out of range"),
        ("-1", "is not a port"),
        ("1.5", "`1.5` is not a port"),
        ("http", "`http` is not a port"),
        ("90-80", "`90-80` runs backwards; write 80-90"),
        ("80-", "`80-` is not a port"),
        ("\"80,,81\"", "`` is not a port"),
        ("\"*,80\"", "`*` already means every port"),
        ("[]", "names no port"),
        ("\"\"", "names no port"),
        ("{a: 1}", "must be ports"),
        ("[[80]]", "must be ports"),
        ("true", "must be ports"),
    ] {
        error(
            &changed("ports: 104", &format!("ports: {text}")),
            "virtual_services[0].ports",
            9,
            needle,
        );
    }
    warning(
        &changed("ports: 104", "ports: 80,79-81"),
        "virtual_services[0].ports",
        9,
        "port 80 is named twice",
    );
}

#[test]
fn interfaces_have_a_mode_and_distinct_names_that_the_kernel_allows() {
    let config = good(&changed("[eth0]", "[eth0, {name: eth1, xdp_mode: native}]")).config;
    let eth1 = Interface { name: "eth1".into(), xdp_mode: XdpMode::Native };
    assert_eq!(config.interfaces[1], eth1);
    error(&changed("[eth0]", "[eth0, eth0]"), "interfaces[1]", 1, "`eth0` is listed twice");
    error(&changed("[eth0]", "[a/b]"), "interfaces[0]", 1, "cannot be a device name");
    error(&changed("[eth0]", "[abcdefghijklmnop]"), "interfaces[0]", 1, "cannot be a device name");
    error(
        &changed("[eth0]", "[{name: e, xdp_mode: fast}]"),
        "interfaces[0].xdp_mode",
        1,
        "must be one of auto",
    );
    error(&changed("[eth0]", "[{xdp_mode: auto}]"), "interfaces[0].name", 1, "is missing");
    error(&changed("[eth0]", "[]"), "interfaces", 1, "name at least one network device");
}

#[test]
fn global_numbers_have_bounds() {
    let global = |text: &str| changed("maximum_flows: 262144", text);
    error(
        &global("maximum_flows: 1023"),
        "global.maximum_flows",
        3,
        "1023 is too small; it must be 1024 to 16777216",
    );
    error(&global("maximum_half_open: 16777217"), "global.maximum_half_open", 3, "too large");
    error(&global("snat_ports: 500-2000"), "global.snat_ports", 3, "below port 1024");
    error(&global("snat_ports: 4000"), "global.snat_ports", 3, "must be a range of ports");
    warning(&global("snat_ports: 65500-65535"), "global.snat_ports", 3, "fewer than 256 ports");
    error(&global("socket: medlb.sock"), "global.socket", 3, "must be an absolute path");
    error(&global(&format!("socket: /{}", "x".repeat(107))), "global.socket", 3, "107 bytes");
    error(
        &global("defaults: {rise: 0}"),
        "global.defaults.rise",
        3,
        "0 is too small; it must be 1 to 1000",
    );
    warning(
        &global("defaults: {interval: 1s}"),
        "global.defaults.interval",
        3,
        "shorter than the timeout (3s)",
    );
}

#[test]
fn words_are_checked() {
    for (key, needle) in [
        ("protocol: TCP", "must be one of tcp, udp, tcp+udp, not `TCP`; did you mean `tcp`?"),
        ("scheduler: wlcc", "did you mean `wlc`?"),
        ("mode: load_balanced", "did you mean `load-balanced`?"),
        ("scheduler: [wlc]", "must be one of wlc, lc, wrr, rr, sh, maglev, not a list"),
    ] {
        let at = format!("{S}.{}", key.split(':').next().unwrap());
        error(&service(key), &at, 9, needle);
    }
    error(
        &service("on_down: {established: off}"),
        "virtual_services[0].on_down.established",
        9,
        "must be one of reset, keep, not `off`",
    );
    error(
        &service("on_down: reset"),
        "virtual_services[0].on_down",
        9,
        "must be a mapping such as",
    );
}

#[test]
fn outbound_rules_are_checked() {
    let rule = |keys: &str| format!("{BASE}outbound_snat:\n  - {{{keys}}}\n");
    let ok =
        "sources: [10.0.0.2, 10.0.0.3], protocol: tcp, ports: \"104,11112\", to_source: 10.0.0.1";
    assert_eq!(good(&rule(ok)).config.outbound_snat[0].sources.len(), 2);
    assert_eq!(
        good(&rule(&ok.replace("[10.0.0.2, 10.0.0.3]", "10.0.0.2"))).config.outbound_snat[0]
            .sources
            .len(),
        1
    );
    let path = |key: &str| format!("outbound_snat[0]{key}");
    error(
        &rule(&ok.replace("10.0.0.3", "2001:db8::1")),
        &path(".sources[1]"),
        18,
        "is IPv6, but to_source is IPv4",
    );
    error(&rule(&ok.replace("[10.0.0.2, 10.0.0.3]", "[]")), &path(".sources"), 18, "is empty");
    error(
        &rule(&ok.replace("sources: [10.0.0.2, 10.0.0.3],", "")),
        &path(".sources"),
        18,
        "is missing",
    );
    error(&rule(&ok.replace(", to_source: 10.0.0.1", "")), &path(".to_source"), 18, "is missing");
    error(&rule(&ok.replace("ports: \"104,11112\",", "")), &path(".ports"), 18, "is missing");
    warning(&rule(&ok.replace("10.0.0.3", "10.0.0.2")), &path(".sources[1]"), 18, "listed twice");
    let two =
        format!("{}  - {{sources: [10.0.0.3], ports: 100-110, to_source: 10.0.0.9}}\n", rule(ok));
    error(&two, "outbound_snat[1]", 19, "outbound_snat[0] already sends from another address");
    good(&two.replace("10.0.0.9", "10.0.0.1"));
}
