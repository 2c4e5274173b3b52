//! Files that cannot be read.

use std::path::PathBuf;

use super::super::load;
use super::BASE;

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("medlb-{}-{name}.yaml", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn message(name: &str, bytes: &[u8]) -> String {
    let path = file(name, bytes);
    let result = load(&path);
    std::fs::remove_file(path).unwrap();
    result.unwrap_err().to_string()
}

#[test]
fn a_good_file_is_read() {
    let path = file("good", BASE.as_bytes());
    let loaded = load(&path);
    std::fs::remove_file(path).unwrap();
    assert_eq!(loaded.unwrap().config.services.len(), 1);
}

#[test]
fn a_file_that_does_not_exist_is_named_as_such() {
    let message = load("/nonexistent/x.yaml".as_ref()).unwrap_err().to_string();
    assert!(message.contains("cannot read the file: No such file"), "{message}");
}

#[test]
fn a_directory_is_not_a_file() {
    let message = load(&std::env::temp_dir()).unwrap_err().to_string();
    assert!(message.contains("is a directory"), "{message}");
}

#[test]
fn a_huge_file_is_refused() {
    let message = message("huge", &vec![b'#'; 4 * 1024 * 1024 + 1]);
    assert!(message.contains("larger than 4 MiB"), "{message}");
}

#[test]
fn a_file_that_is_not_utf8_names_the_line() {
    let message = message("latin1", b"interfaces: [eth0]\n# M\xfcnchen\n");
    assert!(message.starts_with("line 2: is not UTF-8"), "{message}");
}
