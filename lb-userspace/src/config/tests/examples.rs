//! The files under `examples/`, the sample of a whole configuration, and the schema.

use std::path::Path;

use super::super::model::{CheckKind, ForwardingMethod};
use super::super::{load, schema};
use super::good;

const EXAMPLES: [(&str, usize); 5] = [
    ("ge-dosewatch", 3),
    ("konica-minolta-dispatcher-paragon", 2),
    ("medical-imaging-protocols", 4),
    ("oki-dicom-printers", 1),
    ("philips-intellispace-pacs", 9),
];

fn example(name: &str) -> super::Loaded {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    load(&dir.join(format!("{name}.yaml"))).unwrap_or_else(|errors| panic!("{name}: {errors}"))
}

#[test]
fn every_example_is_valid() {
    for (name, services) in EXAMPLES {
        assert_eq!(example(name).config.services.len(), services, "{name}");
    }
}

#[test]
fn no_example_is_left_out() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut files: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    files.sort();
    assert_eq!(files, EXAMPLES.map(|(name, _)| format!("{name}.yaml")));
}

#[test]
fn the_examples_warn_only_of_what_the_guides_do() {
    for (name, _) in EXAMPLES {
        for warning in example(name).warnings {
            let known = warning.message.contains("no persistence")
                || warning.message.starts_with("ping tells that the host is up");
            assert!(known, "{name}: {warning}");
        }
    }
}

#[test]
fn the_philips_example_says_what_the_guide_says() {
    let config = example("philips-intellispace-pacs").config;
    let dmwl = &config.services[2];
    assert_eq!(dmwl.forwarding_method, ForwardingMethod::Snat);
    assert_eq!(dmwl.source_address, Some("192.168.85.4".parse().unwrap()));
    assert_eq!(dmwl.persistence.unwrap().timeout.as_secs(), 3600);
    assert_eq!(dmwl.real_servers[0].health_check.kind, CheckKind::Ping { count: 1 });
    assert_eq!(config.outbound_snat[0].ports, [104..=104, 11112..=11112]);
    assert_eq!(config.outbound_snat[0].sources.len(), 3);
}

#[test]
fn the_schema_lists_keys_words_and_durations() {
    let schema = schema();
    let schema = schema.as_value();
    let keys = |name: &str| schema["$defs"][name]["properties"].as_object().unwrap().clone();
    assert_eq!(schema["properties"].as_object().unwrap().len(), 5);
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["interfaces"]));
    assert_eq!(keys("RawService").len(), 17);
    assert!(!keys("RawService").contains_key("unknown"));
    assert!(keys("RawCheck").contains_key("type"));
    assert_eq!(schema["$defs"]["Scheduler"]["enum"].as_array().unwrap().len(), 6);
    let duration = &schema["$defs"]["Duration"]["anyOf"];
    assert_eq!((&duration[0]["type"], &duration[1]["type"]), (&"string".into(), &"number".into()));
    let weight = &schema["$defs"]["RawServer"]["properties"]["weight"];
    assert_eq!(weight["maximum"], 65535);
    assert!(weight["description"].as_str().unwrap().contains("Default: 100"));
}

/// The sample of the interface document, with every key, made consistent: `source_address` needs
/// snat, and snat allows ports.
#[test]
fn a_file_with_every_key_is_valid() {
    let loaded = good(include_str!("every-key.yaml"));
    assert_eq!(loaded.warnings, []);
    let service = &loaded.config.services[0];
    assert_eq!(service.ports_text, "104");
    assert_eq!(service.real_servers[0].port, Some(11112));
    assert!(service.drain_keep_persistent);
}

#[test]
fn a_thousand_services_with_ten_servers_are_read() {
    use std::fmt::Write;
    let mut text = String::from("interfaces: [eth0]\nvirtual_services:\n");
    for s in 0..1000 {
        let (a, b) = (s / 250, s % 250);
        writeln!(text, "  - label: S{s}\n    address: 10.{a}.{b}.1\n    ports: 104").unwrap();
        writeln!(text, "    forwarding_method: dr\n    real_servers:").unwrap();
        for r in 2..12 {
            writeln!(text, "      - {{label: R{r}, address: 10.{a}.{b}.{r}}}").unwrap();
        }
    }
    assert_eq!(good(&text).config.services.len(), 1000);
}
