//! What is accepted, and what is said about the rest: path, line and substance of every message.

mod checks;
mod examples;
mod files;
mod global;
mod random;
mod servers;
mod services;
mod syntax;

use super::{Loaded, Problem, parse};

/// A file without errors or warnings. Cases change one line of it.
const BASE: &str = "\
interfaces: [eth0]
global:
  maximum_flows: 262144
health_checks:
  echo: {type: dicom-echo, called_ae: PACS}
virtual_services:
  - label: A
    address: 10.0.0.1
    ports: 104
    forwarding_method: nat
    health_check: echo
    real_servers:
      - label: R1
        address: 10.0.0.2
      - label: R2
        address: 10.0.0.3
";

/// BASE with the first `from` replaced.
fn changed(from: &str, to: &str) -> String {
    assert!(BASE.contains(from), "the base has no {from:?}");
    BASE.replacen(from, to, 1)
}

/// BASE with a second service, given by its keys, from line 17 on.
fn with_service(keys: &str) -> String {
    format!("{BASE}  - {keys}\n")
}

fn good(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn errors(text: &str) -> Vec<Problem> {
    match parse(text) {
        Ok(loaded) => panic!("no error, but {:?}, in\n{text}", loaded.warnings),
        Err(errors) => errors.errors,
    }
}

fn is(problem: &Problem, path: &str, line: usize, needle: &str) -> bool {
    problem.path == path && problem.line == Some(line) && problem.message.contains(needle)
}

/// The file has exactly this error.
#[track_caller]
fn error(text: &str, path: &str, line: usize, needle: &str) {
    let errors = errors(text);
    assert!(
        errors.len() == 1 && is(&errors[0], path, line, needle),
        "want line {line}: {path}: …{needle}…\ngot {errors:#?}\n{text}"
    );
}

/// The file has exactly this warning and no error.
#[track_caller]
fn warning(text: &str, path: &str, line: usize, needle: &str) {
    let warnings = good(text).warnings;
    assert!(
        warnings.len() == 1 && is(&warnings[0], path, line, needle),
        "want line {line}: {path}: …{needle}…\ngot {warnings:#?}\n{text}"
    );
}

#[test]
fn the_base_of_these_tests_is_clean() {
    assert_eq!(good(BASE).warnings, []);
}
