//! YAML and its pitfalls.

use super::super::parse;
use super::*;

#[test]
fn everything_wrong_is_reported_at_once_in_the_order_of_lines() {
    let text = "\
interfaces: eth0
globl: {}
virtual_services:
  - label: A
    adress: 10.0.0.1
    ports: [80, 99999]
    forwarding_method: rd
    schedular: wlc
    real_servers:
      - {label: R, address: 10.0.0.300, weight: heavy, weigth: 3}
      - 7
";
    let got: Vec<String> = errors(text).iter().map(ToString::to_string).collect();
    let want = [
        "line 1: interfaces: must be a list (entries start with `- `), not `eth0`",
        "line 2: globl: unknown key `globl`; did you mean `global`?",
        "line 4: virtual_services[0].address: is missing",
        "line 5: virtual_services[0].adress: unknown key `adress`; did you mean `address`?",
        "line 6: virtual_services[0].ports: `99999` is out of range; ports are 1 to 65535",
        "line 7: virtual_services[0].forwarding_method: must be one of dr, nat, snat, not `rd`",
        "line 8: virtual_services[0].schedular: unknown key `schedular`; did you mean `scheduler`?",
        "line 10: virtual_services[0].real_servers[0].weigth: unknown key `weigth`; did you mean `w",
        "line 10: virtual_services[0].real_servers[0].address: must be an IPv4 or IPv6 address, no",
        "line 10: virtual_services[0].real_servers[0].weight: must be a whole number, not `heavy`",
        "line 11: virtual_services[0].real_servers[1]: must be a mapping with label, address, …, n",
    ];
    assert_eq!(got.len(), want.len(), "{got:#?}");
    for (got, want) in got.iter().zip(want) {
        assert!(got.starts_with(want), "got  {got}\nwant {want}");
    }
}

#[test]
fn an_unknown_key_that_resembles_nothing_lists_what_there_is() {
    let text = changed("  maximum_flows: 262144", "  colour: blue");
    error(&text, "global.colour", 3, "the keys here are defaults, maximum_flows,");
}

#[test]
fn an_unknown_key_is_found_on_every_level() {
    for (from, to, path, line) in [
        ("  maximum_flows: 262144", "  defaults: {intervall: 3s}", "global.defaults.intervall", 3),
        ("echo: {type", "echo: {tipe: x, type", "health_checks.echo.tipe", 5),
        ("{type", "{tls: {verfy: true}, type", "health_checks.echo.tls.verfy", 5),
        ("[eth0]", "[{name: eth0, xdp_mod: auto}]", "interfaces[0].xdp_mod", 1),
        (
            "ports: 104",
            "ports: 104\n    on_down: {establishd: keep}",
            "virtual_services[0].on_down.establishd",
            10,
        ),
        ("ports: 104", "ports: 104\n    drain: {keep: true}", "virtual_services[0].drain.keep", 10),
        (
            "ports: 104",
            "ports: 104\n    persistence: {time: 1h}",
            "virtual_services[0].persistence.time",
            10,
        ),
        (
            "ports: 104",
            "ports: 104\n    fallback_server: {address: 10.0.0.9, prt: 1}",
            "virtual_services[0].fallback_server.prt",
            10,
        ),
        (
            "virtual",
            "outbound_snat: [{sources: 10.0.0.2, ports: 1, to_source: 10.0.0.1, port: 1}]\nvirtual",
            "outbound_snat[0].port",
            6,
        ),
    ] {
        error(&changed(from, to), path, line, "unknown key");
    }
}

#[test]
fn a_duplicate_key_is_an_error_that_names_both_lines() {
    let text = changed("    ports: 104", "    ports: 104\n    label: B");
    error(&text, "virtual_services[0].label", 10, "first on line 7");
    let text = BASE.replace("address: 10.0.0.3", "label: R3") + "global: {}\n";
    let errors = errors(&text);
    assert_eq!(errors.len(), 2, "{errors:?}");
}

#[test]
fn a_syntax_error_has_its_line() {
    let errors = errors(&changed("ports: 104", "ports: [104"));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].message.starts_with("not valid YAML: "), "{errors:?}");
    assert!(errors[0].line.is_some_and(|line| (9..=11).contains(&line)), "{errors:?}");
}

#[test]
fn a_tab_is_named_as_the_cause() {
    error(&changed("    ports: 104", "\tports: 104"), "", 9, "a tab is used for indentation");
}

#[test]
fn an_empty_file_says_that_it_is_empty() {
    for text in ["", "\n\n", "# nothing\n", "---\n", "~\n", "null"] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{text:?}: {errors:?}");
        assert!(errors[0].message.contains("is empty"), "{text:?}: {errors:?}");
    }
}

#[test]
fn a_file_that_is_no_mapping_says_what_it_should_be() {
    for text in ["[]", "hello", "- a\n- b", "7"] {
        assert!(errors(text)[0].message.contains("must be a mapping with interfaces"), "{text}");
    }
}

#[test]
fn a_second_document_is_refused() {
    error(&format!("{BASE}---\na: 1\n"), "", 17, "a second YAML document");
}

#[test]
fn no_and_off_are_not_booleans() {
    for word in ["no", "off", "yes", "\"false\"", "0", "False!"] {
        let text = changed("ports: 104", &format!("ports: 104\n    enabled: {word}"));
        error(&text, "virtual_services[0].enabled", 10, "must be true or false, not `");
    }
}

#[test]
fn text_that_yaml_reads_as_something_else_should_be_quoted() {
    error(&changed("label: A", "label: 7"), "virtual_services[0].label", 7, "put it in quotes");
    error(&changed("label: A", "label: true"), "virtual_services[0].label", 7, "put it in quotes");
    error(&changed("echo:", "104: {type: ping}\n  echo:"), "health_checks", 4, "the key `104` is");
}

#[test]
fn a_key_without_a_value_is_an_error_for_scalars_and_nothing_for_collections() {
    let text = changed("ports: 104", "ports:");
    error(&text, "virtual_services[0].ports", 9, "an empty value");
    let text = changed("ports: 104", "ports: 104\n    scheduler:");
    error(&text, "virtual_services[0].scheduler", 10, "not an empty value");
    good(&changed("  maximum_flows: 262144\n", ""));
    good(&changed("ports: 104", "ports: 104\n    drain:\n    on_down:\n    fallback_server:"));
}

#[test]
fn a_number_beyond_all_bounds_has_its_line() {
    for number in ["99999999999999999999", "-99999999999999999999"] {
        let text = changed("ports: 104", &format!("ports: {number}"));
        error(&text, "", 9, "more digits than any may have");
    }
}

#[test]
fn tags_are_refused() {
    error(&changed("label: A", "label: !secret A"), "virtual_services[0].label", 7, "the tag !");
}

#[test]
fn anchors_aliases_and_merge_keys_work_and_keep_their_lines() {
    let text = "\
interfaces: [eth0]
virtual_services:
  - &a
    label: A
    address: 10.0.0.1
    ports: 80
    forwarding_method: nat
    real_servers: &servers
      - {label: R, address: 10.0.0.2, port: 8080}
  - <<: *a
    label: B
    ports: 81
    protocol: udp
    health_check: none
  - <<: *a
    label: C
    address: 10.0.0.4
    real_servers: [{label: R, address: 10.0.0.9}]
";
    let services = good(text).config.services;
    assert_eq!(services.len(), 3);
    assert_eq!(services[1].ports, [81..=81]);
    assert_eq!(services[1].real_servers[0].port, Some(8080));
    let bad = text.replace("ports: 80", "ports: 0");
    let errors = errors(&bad);
    assert!(errors.iter().all(|error| error.line == Some(6)), "{errors:?}");
    assert_eq!(errors.len(), 2, "services A and C: {errors:?}");
}

#[test]
fn an_alias_bomb_is_refused_quickly() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    let started = std::time::Instant::now();
    let errors = errors(&text);
    assert!(errors[0].message.contains("unreasonably large"), "{errors:?}");
    assert!(started.elapsed().as_secs() < 5);
    // Wide instead of deep.
    let items = vec!["x"; 20_000].join(",");
    let uses = vec!["*a"; 20_000].join(",");
    let wide = super::errors(&format!("a: &a [{items}]\nb: [{uses}]\n"));
    assert!(wide[0].message.contains("unreasonably large"), "{wide:?}");
}

#[test]
fn an_alias_inside_its_own_anchor_is_refused() {
    assert!(parse("interfaces: &a [*a]").is_err());
}

#[test]
fn deep_nesting_is_refused() {
    let nested = |depth| format!("interfaces: {}{}", "[".repeat(depth), "]".repeat(depth));
    error(&nested(40), "", 1, "nested deeper than 32 levels");
    error(&nested(10_000), "", 1, "not valid YAML: recursion limit exceeded");
    let blocks: String = (0..40).map(|depth| format!("{}a:\n", "  ".repeat(depth))).collect();
    error(&blocks, "", 33, "nested deeper than 32 levels");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
    good(&format!("\u{feff}{}", BASE.replace('\n', "\r\n")));
}

#[test]
fn a_flood_of_errors_is_cut() {
    let keys: String = (0..3000).map(|n| format!("zzzzzz{n}: 1\n")).collect();
    let errors = errors(&format!("{BASE}{keys}"));
    assert_eq!(errors.len(), 1001);
    assert!(errors[1000].message.contains("and 2000 more errors"), "{:?}", errors[1000]);
}

#[test]
fn the_hash_is_the_files_sha256() {
    let hash = good(BASE).config.hash;
    assert_eq!(hash.len(), 64);
    assert_ne!(hash, good(&format!("{BASE}\n")).config.hash);
}
