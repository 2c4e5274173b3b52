use super::*;

#[test]
fn a_service_is_green_yellow_or_red_by_how_many_servers_are_in_rotation() {
    use Effective::{Draining, InRotation, Out};
    assert_eq!(state([InRotation, InRotation]), "green");
    assert_eq!(state([InRotation, Out]), "yellow");
    assert_eq!(state([Draining, Out]), "red");
    assert_eq!(state([]), "red");
}

#[test]
fn durations_are_milliseconds_with_one_decimal() {
    let mut view = super::super::testing::view(Health::Up);
    view.history[0].duration = std::time::Duration::from_nanos(3_149_999);
    assert_eq!(last_check(&view.history[0]).duration_ms, 3.1);
}
