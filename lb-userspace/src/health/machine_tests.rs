use super::*;
use Health::{Down, Falling, Rising, Unknown, Up};
use proptest::prelude::*;

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(second)
}

fn outcome(result: ProbeResult, second: u64) -> Outcome {
    let detail = format!("outcome {second}");
    Outcome { result, phase: "connect", detail, duration: Duration::from_millis(3), at: at(second) }
}

fn rules(rise: u32, fall: u32) -> Rules {
    Rules { rise, fall, interval: Duration::from_secs(6), on_busy: OnBusy::Up }
}

/// Feeds p(ass), f(ail) and b(usy), one a second from second 1, and gives the state after each.
fn feed(machine: &mut Machine, results: &str) -> Vec<Health> {
    let mut states = Vec::new();
    for (second, result) in (1..).zip(results.chars()) {
        let result = match result {
            'p' => ProbeResult::Pass,
            'f' => ProbeResult::Fail,
            _ => ProbeResult::Busy,
        };
        machine.on_outcome(outcome(result, second));
        states.push(machine.health());
    }
    states
}

#[test]
fn the_first_pass_brings_an_unknown_server_up() {
    let mut m = Machine::new(rules(2, 3), at(0));
    assert_eq!(feed(&mut m, "p"), [Up]);
    assert_eq!(m.view(None).changed_at, at(1));
}

#[test]
fn an_unknown_server_is_down_only_after_fall_failures() {
    let mut m = Machine::new(rules(2, 3), at(0));
    assert_eq!(feed(&mut m, "fff"), [Unknown, Unknown, Down]);
    assert_eq!(m.view(None).changed_at, at(3));
}

#[test]
fn a_pass_among_first_failures_brings_an_unknown_server_up() {
    let mut m = Machine::new(rules(2, 3), at(0));
    assert_eq!(feed(&mut m, "ffp"), [Unknown, Unknown, Up]);
}

#[test]
fn a_server_falls_and_rises_step_by_step() {
    let mut m = Machine::new(rules(2, 3), at(0));
    let states = feed(&mut m, "pfffpp");
    assert_eq!(states, [Up, Falling { n: 1 }, Falling { n: 2 }, Down, Rising { n: 1 }, Up]);
}

#[test]
fn a_pass_while_falling_is_up_and_a_failure_while_rising_is_down() {
    let mut m = Machine::new(rules(3, 3), at(0));
    assert_eq!(feed(&mut m, "pffp"), [Up, Falling { n: 1 }, Falling { n: 2 }, Up]);
    assert_eq!(m.view(None).changed_at, at(1), "it never left");
    assert_eq!(feed(&mut m, "fff").last(), Some(&Down));
    assert_eq!(feed(&mut m, "ppfp"), [Rising { n: 1 }, Rising { n: 2 }, Down, Rising { n: 1 }]);
}

#[test]
fn rise_and_fall_of_one_skip_the_steps_between() {
    let mut m = Machine::new(rules(1, 1), at(0));
    assert_eq!(feed(&mut m, "fpfp"), [Down, Up, Down, Up]);
}

#[test]
fn a_change_is_reported_once_with_both_states() {
    let mut m = Machine::new(rules(2, 2), at(0));
    let up = m.on_outcome(outcome(ProbeResult::Pass, 1));
    assert_eq!(up, Some(Change { old: Unknown, new: Up }));
    assert_eq!(m.on_outcome(outcome(ProbeResult::Pass, 2)), None);
    let falling = m.on_outcome(outcome(ProbeResult::Fail, 3));
    assert_eq!(falling, Some(Change { old: Up, new: Falling { n: 1 } }));
}

#[test]
fn busy_is_a_pass_unless_the_operator_says_otherwise() {
    let mut m = Machine::new(rules(2, 2), at(0));
    assert_eq!(feed(&mut m, "pbb"), [Up, Up, Up]);
    assert!(!m.view(None).busy_drain);

    let mut m = Machine::new(Rules { on_busy: OnBusy::Down, ..rules(2, 2) }, at(0));
    assert_eq!(feed(&mut m, "pbb"), [Up, Falling { n: 1 }, Down]);
    assert!(!m.view(None).busy_drain);
}

#[test]
fn busy_drain_starts_and_ends_with_an_event_and_outlives_a_single_failure() {
    let mut m = Machine::new(Rules { on_busy: OnBusy::Drain, ..rules(2, 2) }, at(0));
    feed(&mut m, "p");
    let busy = m.on_outcome(outcome(ProbeResult::Busy, 2));
    assert_eq!(busy, Some(Change { old: Up, new: Up }));
    assert!(m.view(None).busy_drain);
    m.on_outcome(outcome(ProbeResult::Fail, 3));
    assert!(m.view(None).busy_drain, "a failure does not say that there is room again");
    m.on_outcome(outcome(ProbeResult::Pass, 4));
    assert!(!m.view(None).busy_drain);
}

#[test]
fn the_interval_is_halved_while_falling_or_rising() {
    let mut m = Machine::new(rules(2, 2), at(0));
    let seconds = |m: &Machine| m.interval().as_secs_f64();
    assert_eq!(seconds(&m), 6.0);
    feed(&mut m, "pf");
    assert_eq!(seconds(&m), 3.0);
    feed(&mut m, "f");
    assert_eq!(seconds(&m), 6.0);
    feed(&mut m, "p");
    assert_eq!(seconds(&m), 3.0);
}

#[test]
fn half_an_interval_is_never_under_a_second_nor_over_the_interval() {
    for (interval, half) in [(6000, 3000), (2000, 1000), (1500, 1000), (1000, 1000), (200, 200)] {
        let interval = Duration::from_millis(interval);
        let mut m = Machine::new(Rules { interval, ..rules(2, 2) }, at(0));
        feed(&mut m, "pf");
        assert_eq!(m.interval(), Duration::from_millis(half), "of {interval:?}");
    }
}

#[test]
fn the_last_twenty_outcomes_are_kept_newest_last() {
    let mut m = Machine::new(rules(2, 2), at(0));
    feed(&mut m, &"p".repeat(25));
    let history = m.view(None).history;
    assert_eq!(history.len(), 20);
    assert_eq!(history[0].detail, "outcome 6");
    assert_eq!(history[19].detail, "outcome 25");
}

#[test]
fn new_rules_keep_the_verdict_and_the_history() {
    let mut m = Machine::new(rules(2, 3), at(0));
    feed(&mut m, "pf");
    let m = Machine::succeed(&m, rules(5, 2));
    assert_eq!(m.health(), Up);
    assert_eq!(m.view(None).history.len(), 2);
    let mut down = Machine::new(rules(3, 1), at(0));
    feed(&mut down, "fp");
    let mut down = Machine::succeed(&down, rules(2, 1));
    assert_eq!(down.health(), Down);
    assert_eq!(feed(&mut down, "pp"), [Rising { n: 1 }, Up]);
}

proptest! {
    /// The machine against the definition: a run of `rise` passes ends up, one of `fall` failures
    /// ends down, and nothing else moves a server in or out of rotation.
    #[test]
    fn rotation_changes_only_after_full_runs(
        rise in 1u32..5, fall in 1u32..5, passes in prop::collection::vec(any::<bool>(), 1..80),
    ) {
        let mut m = Machine::new(rules(rise, fall), at(0));
        let mut expected: Option<bool> = None;
        let (mut good, mut bad) = (0, 0);
        for (second, pass) in (1..).zip(passes) {
            (good, bad) = if pass { (good + 1, 0) } else { (0, bad + 1) };
            match expected {
                None if good >= 1 => expected = Some(true),
                None | Some(true) if bad >= fall => expected = Some(false),
                Some(false) if good >= rise => expected = Some(true),
                _ => {}
            }
            let result = if pass { ProbeResult::Pass } else { ProbeResult::Fail };
            m.on_outcome(outcome(result, second));
            let judged = match m.health() {
                Unknown => None,
                Up | Falling { .. } => Some(true),
                Down | Rising { .. } => Some(false),
            };
            prop_assert_eq!(judged, expected);
            match m.health() {
                Falling { n } => prop_assert!(n >= 1 && n < fall && n == bad),
                Rising { n } => prop_assert!(n >= 1 && n < rise && n == good),
                Unknown | Up | Down => {}
            }
        }
    }
}
