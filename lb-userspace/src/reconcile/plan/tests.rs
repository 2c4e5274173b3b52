use std::time::Duration;

use lb_common::abi::NO_REAL;

use super::super::state::Sizes;
use super::*;
use crate::config::model::{FallbackServer, ForwardingMethod};
use crate::desired::tests::World;
use crate::health::Health;

const CLOCK: Clock = Clock { hz: 250, tick_shift: 8 };

fn sizes() -> Sizes {
    Sizes { services: 4096, reals: 16_384, slots: 1 << 20, ports: 65_536, vips: 4096 }
}

fn step(state: &State, world: &World) -> Plan {
    plan(state, &world.desired(), CLOCK).unwrap()
}

fn settled(world: &World) -> State {
    step(&State::new(sizes()), world).next
}

fn kinds(plan: &Plan) -> Vec<&'static str> {
    let kind = |op: &Op| match op {
        Op::Interface(..) => "interface",
        Op::RemoveInterface(..) => "remove interface",
        Op::Filter(..) => "filter",
        Op::ServiceName(..) => "service name",
        Op::RealName(..) => "real name",
        Op::Real(..) => "real",
        Op::Slots(..) => "slots",
        Op::Service(..) => "service",
        Op::Bank(..) => "bank",
        Op::Ports(..) => "ports",
        Op::Vip(..) => "vip",
        Op::RemoveVip(..) => "remove vip",
        Op::Outbound(..) => "outbound",
        Op::RemoveOutbound(..) => "remove outbound",
    };
    plan.ops.iter().map(kind).collect()
}

#[test]
fn a_first_plan_points_at_nothing_that_is_not_there_yet() {
    let plan = step(&State::new(sizes()), &World::new(&[1]));
    assert_eq!(
        kinds(&plan),
        [
            "interface",
            "service name",
            "real name",
            "filter",
            "real",
            "slots",
            "service",
            "bank",
            "ports",
            "vip"
        ]
    );
}

#[test]
fn a_second_plan_of_the_same_is_empty() {
    let world = World::new(&[1, 2, 3]);
    assert_eq!(step(&settled(&world), &world).ops, []);
}

#[test]
fn a_failed_server_is_shut_before_its_table_is_made_anew() {
    let mut world = World::new(&[1, 1]);
    let state = settled(&world);
    world.set(1, Health::Down, Duration::ZERO);
    let plan = step(&state, &world);
    assert_eq!(kinds(&plan), ["real", "slots", "service", "bank"]);
    let Op::Real(1, real) = &plan.ops[0] else { panic!("{:?}", plan.ops[0]) };
    assert_eq!(real.flags, real_flags::RESET | real_flags::NEIGHBOUR);
    assert_eq!(plan.drop_persistence, [1]);
    // The old table stays whole while packets may read it.
    let Op::Slots(first, _) = &plan.ops[1] else { panic!("{:?}", plan.ops[1]) };
    assert_eq!(*first, 2);
    assert_eq!(step(&plan.next, &world).ops, []);
}

#[test]
fn one_of_many_services_changes_alone() {
    let mut world = World::new(&[1, 1]);
    for i in 1..1000u32 {
        let mut service = world.config.services[0].clone();
        service.label = format!("S{i}");
        service.address = std::net::Ipv4Addr::from(0x0a01_0000 + i).into();
        world.config.services.push(service);
    }
    let state = settled(&world);
    world.set(0, Health::Down, Duration::ZERO);
    let plan = step(&state, &world);
    assert_eq!(kinds(&plan), ["real", "slots", "service", "bank"]);
}

#[test]
fn a_server_with_a_new_address_is_a_new_server() {
    let mut world = World::new(&[1, 1]);
    let state = settled(&world);
    world.config.services[0].real_servers[0].address = "10.0.0.99".parse().unwrap();
    world.know(0);
    let plan = step(&state, &world);
    assert_eq!(kinds(&plan), ["real name", "real", "slots", "service", "bank", "real"]);
    let Op::Real(index, old) = plan.ops.last().unwrap() else { panic!() };
    assert_eq!((*index, old.flags), (0, real_flags::NEIGHBOUR));
    let retired = plan.next.retired();
    assert_eq!(retired.len(), 1);
    assert_eq!(retired[0].1, 0);
}

#[test]
fn a_released_index_is_used_again_and_no_other() {
    let mut world = World::new(&[1, 1]);
    let state = settled(&world);
    let server = world.config.services[0].real_servers.pop().unwrap();
    let mut state = step(&state, &world).next;
    // Removed and put back before it was released: the same one.
    world.config.services[0].real_servers.push(server.clone());
    let back = step(&state, &world).next;
    assert!(back.retired().is_empty());
    assert_eq!(back.real_indices.bound(), 2);
    for (key, _) in state.retired() {
        state.release_real(&key);
    }
    let again = step(&state, &world).next;
    assert_eq!(again.real_indices.bound(), 2);
}

#[test]
fn a_removed_service_disappears_after_its_last_server() {
    let mut world = World::new(&[1]);
    let state = settled(&world);
    world.config.services.clear();
    let plan = step(&state, &world);
    assert_eq!(kinds(&plan), ["remove vip", "real", "filter"]);
    let mut state = plan.next;
    assert!(state.empty_services().is_empty());
    for (key, _) in state.retired() {
        state.release_real(&key);
    }
    let empty = state.empty_services();
    assert_eq!(empty.len(), 1);
    state.release_service(&empty[0].0);
    assert!(state.services.is_empty());
}

#[test]
fn an_unresolved_neighbour_keeps_the_old_one() {
    let mut world = World::new(&[1]);
    let state = settled(&world);
    world.paths.clear();
    assert_eq!(step(&state, &world).ops, []);
}

#[test]
fn filter_bits_are_set_early_and_cleared_late() {
    let mut world = World::new(&[1]);
    let state = settled(&world);
    world.config.services[0].address = "10.9.9.9".parse().unwrap();
    let plan = step(&state, &world);
    assert_eq!(kinds(&plan), ["filter", "ports", "vip", "remove vip", "filter"]);
}

#[test]
fn nat_servers_are_in_the_filter_and_dr_servers_are_not() {
    let mut world = World::new(&[1]);
    let bit = |world: &World| {
        let address = world.config.services[0].real_servers[0].address;
        settled(world).filter[record::bucket(address)]
    };
    assert_eq!(bit(&world), 0);
    world.config.services[0].forwarding_method = ForwardingMethod::Nat;
    assert_eq!(bit(&world), FilterBit::REAL);
}

#[test]
fn ports_of_two_services_on_one_address_are_one_sorted_run() {
    let mut world = World::new(&[1]);
    let mut other = world.config.services[0].clone();
    other.label = "HL7".into();
    other.ports = vec![2575..=2580];
    world.config.services.push(other);
    let state = settled(&world);
    let vip = state.vips.values().next().unwrap();
    let low: Vec<u32> = vip.ranges.iter().map(|range| range.low & 0xffff).collect();
    assert_eq!(low, [104, 2575, 11_112]);
}

#[test]
fn the_fallback_server_is_named_by_its_index() {
    let mut world = World::new(&[1]);
    assert_eq!(settled(&world).services["DICOM"].record.fallback, NO_REAL);
    let address = "10.0.0.250".parse().unwrap();
    world.config.services[0].fallback_server = Some(FallbackServer { address, port: None });
    assert_eq!(settled(&world).services["DICOM"].record.fallback, 1);
}

#[test]
fn too_many_real_servers_are_refused_in_words() {
    let tight = Sizes { reals: 1, ..sizes() };
    let error = plan(&State::new(tight), &World::new(&[1, 1]).desired(), CLOCK).unwrap_err();
    assert!(error.to_string().contains("more than 1 real servers"), "{error}");
}

#[test]
fn an_outbound_rule_comes_behind_its_records_and_goes_without_ending_its_connections() {
    let mut world = World::new(&[1]);
    let before = settled(&world);
    world.config.outbound_snat = vec![crate::config::model::OutboundSnat {
        sources: vec!["10.0.9.1".parse().unwrap()],
        protocol: crate::config::model::Protocol::Tcp,
        ports: vec![104..=104],
        to_source: "10.0.0.50".parse().unwrap(),
    }];
    let added = step(&before, &world);
    assert_eq!(
        kinds(&added),
        ["service name", "real name", "filter", "real", "service", "bank", "ports", "outbound"]
    );
    let Op::Ports(_, ranges) = &added.ops[6] else { panic!("{:?}", added.ops[6]) };
    let Op::Real(index, real) = &added.ops[3] else { panic!("{:?}", added.ops[3]) };
    assert_eq!((ranges[0].service, real.mode), (*index, mode::OUTBOUND));
    assert_eq!(step(&added.next, &world).ops, []);
    world.config.outbound_snat.clear();
    let removed = step(&added.next, &world);
    assert_eq!(kinds(&removed), ["remove outbound", "real", "filter"]);
    // The record stays until the sweeper finds no connection of it.
    assert_eq!(removed.next.retired().len(), 1);
}
