//! Virtual services, and what they may not do to each other.

use std::time::Duration;

use super::super::model::Persistence;
use super::*;

/// BASE with keys put before the service's ports (line 9); one line each.
fn service(keys: &str) -> String {
    changed("    ports: 104", &format!("    {keys}\n    ports: 104"))
}

/// BASE with its forwarding method and ports replaced (lines 9 and 10).
fn method(method: &str, ports: &str) -> String {
    let text = changed("ports: 104", &format!("ports: {ports}"));
    text.replacen("forwarding_method: nat", &format!("forwarding_method: {method}"), 1)
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
fn a_dr_fallback_server_keeps_the_port() {
    let text = service("fallback_server: {address: 10.0.0.9, port: 80}");
    assert_eq!(good(&text).config.services[0].fallback_server.unwrap().port, Some(80));
    let text = text.replace("method: nat", "method: dr");
    let loaded = good(&text);
    assert_eq!(loaded.config.services[0].fallback_server.unwrap().port, None);
    assert!(loaded.warnings[0].message.contains("dr cannot change the port"));
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
fn source_address_belongs_to_snat() {
    let text = service("source_address: 10.0.0.7");
    let loaded = good(&text);
    assert_eq!(loaded.config.services[0].source_address, None);
    assert!(loaded.warnings[0].message.contains("belongs to forwarding_method: snat"));
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
