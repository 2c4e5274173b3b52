//! Real servers.

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

/// BASE with a key added to the first server (line 15).
fn server(key: &str) -> String {
    changed("address: 10.0.0.2", &format!("address: 10.0.0.2\n        {key}"))
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
