use lb_common::abi::{AddrV4, Service};

use super::*;

fn context() -> Context {
    let service = Service {
        flags: service_flags::ENABLED | service_flags::PERSISTENT,
        idle: 1000,
        half_open: 60,
        closing: 30,
        udp_idle: 300,
        persist: 100,
        ..Service::default()
    };
    Context {
        now: 10_000,
        services: vec![Some(service), None],
        reals: vec![
            Some(Owner { service: 0, retired: false }),
            Some(Owner { service: 0, retired: true }),
            None,
        ],
        drop_persistence: HashMap::new(),
    }
}

fn flow(real: u32, state: u8, idle: u32) -> Flow<AddrV4> {
    Flow { real, state, last_seen: 10_000 - idle, ..Flow::default() }
}

#[test]
fn a_flow_lives_through_its_whole_timeout_and_no_longer() {
    let c = context();
    for (kind, state, timeout) in [
        (Kind::Tcp, state::ESTABLISHED, 1000),
        (Kind::Tcp, state::CLOSED, 30),
        (Kind::Tcp, state::RESET, 30),
        (Kind::Half, state::OPENING, 60),
        (Kind::Udp, state::OPENING, 300),
    ] {
        assert!(!c.stale(kind, &flow(0, state, timeout)), "{kind:?} {state}");
        assert!(c.stale(kind, &flow(0, state, timeout + 1)), "{kind:?} {state}");
    }
}

#[test]
fn a_retired_servers_flows_live_on_and_a_freed_index_has_none() {
    let c = context();
    assert!(!c.stale(Kind::Tcp, &flow(1, state::ESTABLISHED, 0)));
    let created = |real, ago: u32| Flow { created: 10_000 - ago, ..flow(real, 1, 0) };
    assert!(c.stale(Kind::Tcp, &created(2, 2)));
    assert!(c.stale(Kind::Tcp, &created(99, 2)));
}

#[test]
fn flows_of_a_server_that_was_added_during_the_sweep_are_left_alone() {
    let c = context();
    for real in [2, 99] {
        let flow = Flow { created: 10_000, ..flow(real, state::ESTABLISHED, 0) };
        assert!(!c.stale(Kind::Tcp, &flow));
        assert!(!c.stale_persistence(0, &Persistence { real, renewed: 10_001 }));
    }
    assert!(!c.stale_persistence(7, &Persistence { real: 0, renewed: 10_001 }));
}

#[test]
fn persistence_ends_with_its_time_its_server_or_its_servers_failure() {
    let mut c = context();
    let entry = |real, idle: u32| Persistence { real, renewed: 10_000 - idle };
    assert!(!c.stale_persistence(0, &entry(0, 100)));
    assert!(c.stale_persistence(0, &entry(0, 101)));
    assert!(c.stale_persistence(0, &entry(1, 0)));
    assert!(c.stale_persistence(1, &entry(0, 2)));
    c.drop_persistence.insert(0, 9_990);
    assert!(c.stale_persistence(0, &entry(0, 11)));
    assert!(c.stale_persistence(0, &entry(0, 10)));
    assert!(!c.stale_persistence(0, &entry(0, 9)));
}

fn moment(active: u64, pending: u64, begun: u64) -> Moment {
    Moment { counts: Connections { active, pending, ..Connections::default() }, begun }
}

fn found(active: u64, pending: u64) -> Found {
    Found { active, pending, ..Found::default() }
}

#[test]
fn an_idle_servers_drift_is_mended_to_the_last_connection() {
    let m = moment(7, 3, 100);
    let fixed = corrected(m, m, found(5, 0)).unwrap();
    assert_eq!((fixed.active, fixed.pending), (5, 0));
    assert_eq!(corrected(m, m, found(7, 3)), None);
    let fixed = corrected(moment(0, 0, 0), moment(0, 0, 0), found(2, 1)).unwrap();
    assert_eq!((fixed.active, fixed.pending), (2, 1));
}

#[test]
fn a_busy_servers_counts_are_left_alone_within_the_noise() {
    // Ten began and eight ended during the walk: it may be wrong by eighteen.
    let (before, after) = (moment(100, 0, 1000), moment(102, 0, 1010));
    assert_eq!(corrected(before, after, found(95, 0)), None);
    let fixed = corrected(before, after, found(60, 0)).unwrap();
    assert_eq!(fixed.active, 62);
}

#[test]
fn what_the_sweeper_removed_is_subtracted_however_busy_the_server_is() {
    let (before, after) = (moment(100, 0, 1000), moment(110, 0, 2000));
    let found = Found { active: 90, removed_active: 10, ..Found::default() };
    assert_eq!(corrected(before, after, found).unwrap().active, 100);
}

#[test]
fn a_flood_does_not_leave_millions_pending() {
    let (before, after) = (moment(5, 5_000_000, 5_000_000), moment(5, 5_100_000, 5_100_000));
    let fixed = corrected(before, after, found(5, 60_000)).unwrap();
    assert_eq!(fixed.active, 5);
    assert_eq!(fixed.pending, 160_000);
}

#[test]
fn counts_never_fall_below_zero() {
    let m = moment(u64::MAX, 0, 0); // one decrement too many
    assert_eq!(corrected(m, m, found(0, 0)).unwrap().active, 0);
}
