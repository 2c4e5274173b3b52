use super::super::testing::{server, service, view};
use super::*;
use crate::net::Path;

fn path(mac: Option<[u8; 6]>, on_link: bool) -> Next {
    let path = Path { ifindex: 2, vlan: 0, src_mac: [2; 6], dst_mac: mac, on_link, source: None };
    Next { path: Some(path), problem: None }
}

fn judged(health: Health, admin: AdminState, next: Option<&Next>) -> Judgement {
    let real = server("DICOM1", 110);
    let service = service("S", vec![real.clone()]);
    judge(&service, &real, Some(&view(health)), admin, next, None)
}

#[test]
fn a_healthy_online_reachable_server_is_in_rotation_also_while_falling() {
    let next = path(Some([2; 6]), true);
    for health in [Health::Up, Health::Falling { n: 2 }] {
        let judgement = judged(health, AdminState::Online, Some(&next));
        assert_eq!(judgement.effective, Effective::InRotation);
    }
    let falling = judged(Health::Falling { n: 2 }, AdminState::Online, Some(&next));
    assert!(falling.reasons[1].contains("2 of 3"), "{falling:?}");
}

#[test]
fn health_beats_drain_and_halt_beats_health() {
    use AdminState::{Drain, Halt, Online};
    let cases = [
        (Health::Down, Online, Effective::Out),
        (Health::Rising { n: 1 }, Online, Effective::Out),
        (Health::Unknown, Online, Effective::Out),
        (Health::Up, Drain, Effective::Draining),
        (Health::Down, Drain, Effective::Out),
        (Health::Up, Halt, Effective::Out),
    ];
    for (health, admin, effective) in cases {
        assert_eq!(judged(health, admin, None).effective, effective, "{health:?} {admin:?}");
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_out_and_says_why() {
    let silent = judged(Health::Up, AdminState::Online, Some(&path(None, true)));
    assert_eq!(silent.effective, Effective::Out);
    assert!(silent.path_problem.unwrap().contains("ARP"));
    let far = judged(Health::Up, AdminState::Online, Some(&path(Some([2; 6]), false)));
    assert!(far.path_problem.unwrap().contains("snat"));
    let problem = Next { path: None, problem: Some("no route to 10.12.1.110".into()) };
    let lost = judged(Health::Up, AdminState::Online, Some(&problem));
    assert_eq!(lost.reasons, ["no route to 10.12.1.110"]);
}

#[test]
fn weight_zero_and_busy_drain() {
    let mut real = server("DICOM1", 110);
    let service = service("S", vec![real.clone()]);
    let mut busy = view(Health::Up);
    busy.busy_drain = true;
    let judgement = judge(&service, &real, Some(&busy), AdminState::Online, None, None);
    assert_eq!(judgement.effective, Effective::Draining);
    real.weight = 0;
    let judgement = judge(&service, &real, Some(&view(Health::Up)), AdminState::Online, None, None);
    assert_eq!(judgement.reasons, ["its weight is 0"]);
}

#[test]
fn an_unjudged_server_keeps_the_place_that_the_data_plane_gave_it() {
    let real = server("DICOM1", 110);
    let service = service("S", vec![real.clone()]);
    let place = |decided| judge(&service, &real, None, AdminState::Online, None, decided);
    let kept = place(Some(Effective::InRotation));
    assert_eq!(kept.effective, Effective::InRotation);
    assert!(kept.reasons[0].contains("not judged yet"), "{kept:?}");
    assert_eq!(place(Some(Effective::Draining)).effective, Effective::Draining);
    assert_eq!(place(None).effective, Effective::Out);
}
