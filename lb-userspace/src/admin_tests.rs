use super::*;
use crate::daemon::testing::{sample, server};

fn open(dir: &Path) -> Store {
    Store::open(dir).unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_790_000_000)
}

#[test]
fn decisions_survive_a_restart_with_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("made/on/demand");
    let mut store = open(&state);
    let real = server("DICOM1", 110);
    assert_eq!(store.set("S", &real, AdminState::Drain, now()).unwrap(), AdminState::Online);
    let again = open(&state);
    assert_eq!(again.state("S", "DICOM1"), AdminState::Drain);
    assert_eq!(again.entry("S", "DICOM1").unwrap().since, now());
    assert_eq!(again.states().len(), 1);
    let mut again = again;
    again.set("S", &real, AdminState::Online, now()).unwrap();
    assert!(open(&state).states().is_empty());
}

#[test]
fn a_crash_before_the_rename_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.set("S", &server("DICOM1", 110), AdminState::Halt, now()).unwrap();
    // What a crash in the middle of writing leaves behind.
    fs::write(dir.path().join("admin.json.new"), b"{\"version\":1,\"serv").unwrap();
    let mut again = open(dir.path());
    assert_eq!(again.state("S", "DICOM1"), AdminState::Halt);
    again.set("S", &server("DICOM2", 111), AdminState::Drain, now()).unwrap();
    assert_eq!(open(dir.path()).states().len(), 2);
}

#[test]
fn a_file_that_makes_no_sense_is_set_aside_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    for (bytes, why) in
        [(&b"{\"version\""[..], "torn"), (b"{\"version\":9,\"servers\":[]}", "newer")]
    {
        fs::write(dir.path().join("admin.json"), bytes).unwrap();
        assert!(open(dir.path()).states().is_empty(), "{why}");
        assert_eq!(fs::read(dir.path().join("admin.json.bad")).unwrap(), bytes, "{why}");
    }
}

#[test]
fn a_decision_that_cannot_be_saved_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut store = open(&state);
    // Root ignores permissions, so the directory itself is made unusable.
    fs::remove_dir(&state).unwrap();
    let error = store.set("S", &server("DICOM1", 110), AdminState::Drain, now()).unwrap_err();
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert_eq!(store.state("S", "DICOM1"), AdminState::Online);
}

#[test]
fn the_configuration_wins_when_the_servers_entry_changes_and_not_when_its_check_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut config = sample(dir.path());
    let service = config.services[0].label.clone();
    for real in config.services[0].real_servers.clone() {
        store.set(&service, &real, AdminState::Drain, now()).unwrap();
    }
    let mut check = (*config.services[0].real_servers[0].health_check).clone();
    check.fall = 9;
    config.services[0].real_servers[0].health_check = check.into();
    assert!(store.follow(&config).unwrap().is_empty());
    config.services[0].real_servers[0].weight = 1;
    assert_eq!(store.follow(&config).unwrap(), [(service.clone(), "DICOM1".to_owned())]);
    assert_eq!(open(dir.path()).states().len(), 1);
    config.services.clear();
    assert_eq!(store.follow(&config).unwrap().len(), 1);
    assert!(open(dir.path()).states().is_empty());
}
