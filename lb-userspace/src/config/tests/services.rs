//! Services, servers, what they may not do to each other, and the global settings.

use std::time::Duration;

use super::super::model::{Interface, Persistence, XdpMode};
use super::*;

const S: &str = "virtual_services[0]";

/// BASE with keys put before the service's ports (line 9); one line each.
fn service(keys: &str) -> String {
    changed("    ports: 104", &format!("    {keys}\n    ports: 104"))
}

/// BASE with its forwarding method and ports replaced (lines 9 and 10).
fn method(method: &str, ports: &str) -> String {
    let text = changed("ports: 104", &format!("ports: {ports}"));
    text.replacen("forwarding_method: nat", &format!("forwarding_method: {method}"), 1)
}

/// BASE with a key added to the first server (line 15).
fn server(key: &str) -> String {
    changed("address: 10.0.0.2", &format!("address: 10.0.0.2\n        {key}"))
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
fn what_is_required_is_missed() {
    for (line, path, at, needle) in [
        ("interfaces: [eth0]\n", "interfaces", None, "name at least one network device"),
        ("label: A\n    ", "virtual_services[0].label", Some(7), "give the service a unique name"),
        ("    address: 10.0.0.1\n", "virtual_services[0].address", Some(7), "write the virtual IP"),
        ("    ports: 104\n", "virtual_services[0].ports", Some(7), "name one port or more"),
        (
            "    forwarding_method: nat\n",
            "virtual_services[0].forwarding_method",
            Some(7),
            "write dr, nat or snat",
        ),
        (
            "label: R1\n        ",
            "virtual_services[0].real_servers[0].label",
            Some(13),
            "unique in its service",
        ),
        (
            "        address: 10.0.0.2\n",
            "virtual_services[0].real_servers[0].address",
            Some(13),
            "real server's IP address",
        ),
        ("type: dicom-echo, ", "health_checks.echo.type", Some(5), "write the type of check"),
    ] {
        let errors = errors(&changed(line, ""));
        let found = errors.iter().find(|error| error.path == path);
        let found = found.unwrap_or_else(|| panic!("{path}: {errors:#?}"));
        assert_eq!(found.line, at, "{found:?}");
        assert!(
            found.message.starts_with("is missing; ") && found.message.contains(needle),
            "{found:?}"
        );
    }
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
fn labels_are_unique() {
    let text = with_service(
        "{label: A, address: 10.0.0.9, ports: 1, forwarding_method: dr, real_servers: [{label: R, address: 10.0.0.2}]}",
    );
    error(
        &text,
        "virtual_services[1].label",
        17,
        "the label `A` is already that of virtual_services[0]",
    );
    error(
        &changed("label: R2", "label: R1"),
        "virtual_services[0].real_servers[1].label",
        15,
        "already that of real_servers[0]",
    );
    error(&changed("label: A", "label: \"\""), "virtual_services[0].label", 7, "must not be empty");
    error(
        &changed("label: A", "label: \"A \""),
        "virtual_services[0].label",
        7,
        "begin or end with a space",
    );
    error(
        &changed("label: A", "label: \"A\\nB\""),
        "virtual_services[0].label",
        7,
        "control characters, as `A\\nB`",
    );
    error(
        &changed("label: A", &format!("label: {}", "a".repeat(121))),
        "virtual_services[0].label",
        7,
        "121 bytes",
    );
}

#[test]
fn addresses_must_be_usable() {
    for (address, needle) in [
        ("127.0.0.1", "is a loopback address"),
        ("0.0.0.0", "is the unspecified address"),
        ("224.0.0.1", "is a multicast address"),
        ("255.255.255.255", "is the broadcast address"),
        ("240.0.0.1", "is a reserved address"),
        ("10.0.0.1/24", "without a prefix length: write 10.0.0.1"),
        ("10.0.0", "must be an IPv4 or IPv6 address"),
        ("10.0", "must be an IPv4 or IPv6 address"),
        ("lb.example", "names are not looked up"),
    ] {
        error(&changed("10.0.0.1", address), "virtual_services[0].address", 8, needle);
        error(
            &changed("10.0.0.2", address),
            "virtual_services[0].real_servers[0].address",
            14,
            needle,
        );
    }
    let six = BASE.replace("10.0.0.", "2001:db8::");
    good(&six);
    for (address, needle) in [
        ("::1", "is a loopback address"),
        ("\"::\"", "is the unspecified address"),
        ("ff02::1", "is a multicast address"),
        ("fe80::1", "is a link-local address"),
        ("fe80::1%eth0", "without a zone"),
        ("::ffff:10.0.0.1", "write it as IPv4"),
    ] {
        let text = six.replacen("2001:db8::2", address, 1);
        error(&text, "virtual_services[0].real_servers[0].address", 14, needle);
    }
}

#[test]
fn families_must_agree() {
    let text = changed("10.0.0.2", "2001:db8::2");
    error(
        &text,
        "virtual_services[0].real_servers[0].address",
        14,
        "2001:db8::2 is IPv6, but the service's address 10.0.0.1 is IPv4",
    );
    error(
        &service("fallback_server: {address: 2001:db8::9}"),
        "virtual_services[0].fallback_server.address",
        9,
        "is IPv6, but",
    );
    let text = service("source_address: 2001:db8::1").replace("method: nat", "method: snat");
    error(&text, "virtual_services[0].source_address", 9, "is IPv6, but");
}

#[test]
fn a_real_server_is_not_the_vip() {
    error(
        &changed("10.0.0.2", "10.0.0.1"),
        "virtual_services[0].real_servers[0].address",
        14,
        "is the service's own address",
    );
    error(
        &service("fallback_server: {address: 10.0.0.1}"),
        "virtual_services[0].fallback_server.address",
        9,
        "the service's own address",
    );
    let text = with_service(
        "{label: B, address: 10.0.0.9, ports: 1, forwarding_method: dr, real_servers: [{label: R, address: 10.0.0.1}]}",
    );
    warning(
        &text,
        "virtual_services[1].real_servers[0].address",
        17,
        "the address of the virtual service `A`",
    );
}

#[test]
fn dr_does_not_translate_ports() {
    let at = "virtual_services[0].real_servers[0].port";
    let with_port = |ports: &str, port: u16| {
        let text = method("dr", ports)
            .replace("health_check: echo", "persistence: {timeout: 1h}\n    health_check: echo");
        text.replace("address: 10.0.0.2", &format!("address: 10.0.0.2\n        port: {port}"))
    };
    error(&with_port("104", 105), at, 16, "dr cannot change the port");
    let loaded = good(&with_port("104", 104));
    assert_eq!((loaded.config.services[0].real_servers[0].port, loaded.warnings.len()), (None, 0));
    warning(&with_port("104,11112", 104), at, 16, "has no effect: dr leaves the port");
    error(&with_port("104,11112", 80), at, 16, "dr cannot change the port");
}

#[test]
fn a_dr_fallback_server_keeps_the_port() {
    let text = service("fallback_server: {address: 10.0.0.9, port: 80}");
    assert_eq!(good(&text).config.services[0].fallback_server.unwrap().port, Some(80));
    let text = text.replace("method: nat", "method: dr");
    error(&text, "virtual_services[0].fallback_server.port", 9, "dr cannot change the port");
    let loaded = good(&text.replace("port: 80", "port: 104"));
    assert_eq!(loaded.config.services[0].fallback_server.unwrap().port, None);
    error(
        &service("fallback_server: {port: 80}"),
        "virtual_services[0].fallback_server.address",
        9,
        "is missing",
    );
}

#[test]
fn a_port_of_a_server_needs_a_service_with_one_port() {
    let at = "virtual_services[0].real_servers[0].port";
    assert_eq!(good(&server("port: 8080")).config.services[0].real_servers[0].port, Some(8080));
    for ports in ["104,105", "104-106", "\"*\""] {
        let text = server("port: 8080").replace("ports: 104", &format!("ports: {ports}"));
        error(&text, at, 15, "the service has several ports");
    }
    error(&server("port: 0"), at, 15, "0 is too small; it must be 1 to 65535");
    error(&server("port: \"80\""), at, 15, "must be a whole number, not `80`");
}

#[test]
fn weights_and_limits_have_bounds() {
    let at = |key: &str| format!("virtual_services[0].real_servers[0].{key}");
    error(&server("weight: 65536"), &at("weight"), 15, "65536 is too large; it must be 0 to 65535");
    error(&server("weight: -1"), &at("weight"), 15, "must be a whole number, not `-1`");
    error(&server("maximum_connections: 4294967296"), &at("maximum_connections"), 15, "too large");
    error(
        &server("minimum_connections: 9\n        maximum_connections: 9"),
        &at("minimum_connections"),
        15,
        "9 must be below maximum_connections (9)",
    );
    warning(
        &server("minimum_connections: 9"),
        &at("minimum_connections"),
        15,
        "no effect without maximum_connections",
    );
    error(&server("slow_start: 2d"), &at("slow_start"), 15, "too long");
    assert_eq!(good(&server("weight: 0")).config.services[0].real_servers[0].weight, 0);
}

#[test]
fn weights_without_effect_are_warned_of() {
    let servers = "virtual_services[0].real_servers";
    let text = server("weight: 0").replace("10.0.0.3", "10.0.0.3\n        weight: 0");
    warning(&text, servers, 12, "every server has weight 0");
    for (key, needle) in [
        ("scheduler: rr", "scheduler: rr ignores"),
        ("scheduler: lc", "scheduler: lc"),
        ("mode: failover", "mode: failover"),
    ] {
        let text = server("weight: 7").replace("ports: 104", &format!("ports: 104\n    {key}"));
        warning(&text, servers, 13, needle);
    }
}

#[test]
fn persistence_is_bounded_by_its_family() {
    let persistence = |text: &str| good(&service(text)).config.services[0].persistence;
    let some = |secs, prefix_length| {
        Some(Persistence { timeout: Duration::from_secs(secs), prefix_length })
    };
    assert_eq!(persistence("persistence: none"), None);
    assert_eq!(persistence("persistence: {timeout: 3600}"), some(3600, 32));
    assert_eq!(persistence("persistence: {prefix_length: 24}"), some(300, 24));
    let six = |text: &str| service(text).replace("10.0.0.", "2001:db8::");
    assert_eq!(
        good(&six("persistence: {timeout: 1h}")).config.services[0].persistence,
        some(3600, 128)
    );
    let at = "virtual_services[0].persistence.prefix_length";
    error(
        &service("persistence: {prefix_length: 33}"),
        at,
        9,
        "33 is too large; it must be 1 to 32",
    );
    error(&service("persistence: {prefix_length: 0}"), at, 9, "too small");
    error(
        &six("persistence: {prefix_length: 129}"),
        at,
        9,
        "129 is too large; it must be 1 to 128",
    );
    error(
        &service("persistence: {timeout: 0}"),
        "virtual_services[0].persistence.timeout",
        9,
        "0s is too short",
    );
    error(
        &service("persistence: 1h"),
        "virtual_services[0].persistence",
        9,
        "must be none or a mapping such as {timeout: 1h}, not `1h`",
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
fn source_address_belongs_to_snat() {
    let text = service("source_address: 10.0.0.7");
    error(&text, "virtual_services[0].source_address", 9, "belongs to forwarding_method: snat");
    good(&text.replace("method: nat", "method: snat"));
}

#[test]
fn idle_timeout_counts_for_udp_only_where_it_is_given() {
    let config = good(&service("idle_timeout: 1h")).config;
    assert_eq!(config.services[0].udp_idle_timeout, Duration::from_secs(3600));
    let config = good(&changed("maximum_flows: 262144", "defaults: {idle_timeout: 1h}")).config;
    assert_eq!(config.services[0].idle_timeout, Duration::from_secs(3600));
    assert_eq!(config.services[0].udp_idle_timeout, Duration::from_secs(300));
    error(
        &service("idle_timeout: 500ms"),
        "virtual_services[0].idle_timeout",
        9,
        "500ms is too short",
    );
}

#[test]
fn dr_on_several_ports_without_persistence_is_a_warning() {
    warning(&method("dr", "104,11112"), "virtual_services[0].ports", 9, "no persistence");
    assert_eq!(good(&method("dr", "104")).warnings, []);
    assert_eq!(good(&method("nat", "104,11112")).warnings, []);
}

#[test]
fn a_service_without_servers_is_a_warning() {
    let at = BASE.find("    real_servers:").unwrap();
    let text = &BASE[..at];
    let loaded = good(text);
    assert!(loaded.warnings.iter().any(|w| w.path == "virtual_services[0].real_servers"
        && w.message.contains("every connection is refused")));
    let text = format!("{text}    fallback_server: {{address: 10.0.0.9}}\n");
    assert!(!good(&text).warnings.iter().any(|w| w.message.contains("refused")));
}

#[test]
fn overlapping_services_are_named_both() {
    let b = |address: &str, ports: &str, more: &str| {
        with_service(&format!(
            "{{label: B, address: {address}, ports: \"{ports}\", forwarding_method: dr, persistence: {{}}, health_check: none, {more} real_servers: [{{label: R, address: 10.0.0.8}}]}}"
        ))
    };
    let path = "virtual_services[1].ports";
    let needle = "port 104 of 10.0.0.1 is taken by two services, `A` (virtual_services[0]) and `B`";
    error(&b("10.0.0.1", "104", ""), path, 17, needle);
    error(&b("10.0.0.1", "80-200", ""), path, 17, needle);
    error(&b("10.0.0.1", "*", ""), path, 17, needle);
    error(&b("10.0.0.1", "104", "protocol: tcp+udp,"), path, 17, needle);
    good(&b("10.0.0.1", "104", "protocol: udp,"));
    good(&b("10.0.0.1", "104", "enabled: false,"));
    good(&b("10.0.0.1", "80-103,105", ""));
    good(&b("10.0.0.4", "104", ""));
}

#[test]
fn overlaps_are_found_also_where_something_else_is_wrong() {
    let text = with_service(
        "{label: B, address: 10.0.0.1, ports: 104, forwarding_method: dr, real_servers: [{label: R, address: 10.0.0.8, weight: 99999}]}",
    );
    let errors = errors(&text);
    assert_eq!(errors.len(), 2, "{errors:#?}");
}

#[test]
fn nat_and_snat_do_not_share_a_servers_port() {
    let b = |method: &str, ports: &str, server: &str| {
        with_service(&format!(
            "{{label: B, address: 10.0.0.7, ports: {ports}, forwarding_method: {method}, real_servers: [{{label: R, {server}}}]}}"
        ))
    };
    let path = "virtual_services[1].real_servers[0]";
    error(
        &b("snat", "104", "address: 10.0.0.2"),
        path,
        17,
        "port 104 of 10.0.0.2 is reached by snat here and by nat in `A` (virtual_services[0])",
    );
    error(
        &b("snat", "80", "address: 10.0.0.3, port: 104"),
        path,
        17,
        "rules for its replies conflict",
    );
    good(&b("snat", "105", "address: 10.0.0.2"));
    good(&b("snat", "104", "address: 10.0.0.2, port: 105"));
    assert_eq!(good(&b("dr", "104", "address: 10.0.0.2")).warnings, []);
    warning(&b("nat", "104", "address: 10.0.0.2"), path, 17, "its second connection refused");
    let both = b("snat", "104", "address: 10.0.0.2").replace("method: nat", "method: snat");
    assert_eq!(good(&both).warnings, []);
}

#[test]
fn the_same_server_twice_is_a_warning() {
    warning(
        &changed("10.0.0.3", "10.0.0.2"),
        "virtual_services[0].real_servers[1].address",
        16,
        "already real_servers[0]",
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
