use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::seams::Scope;
use super::testing::*;
use super::turn::{self, Feeds, Order};
use super::*;
use crate::admin::AdminState;
use crate::api::client::Client;
use crate::api::protocol::{Answer, Command, FailureKind, Filter, Server};
use crate::api::server::{self, Call};
use crate::health::Health;

fn ask(rig: &mut Rig, command: Command) -> Answer {
    let (reply, mut answer) = oneshot::channel();
    rig.daemon.on_call(Call { command, reply, uid: Some(0) });
    answer.try_recv().unwrap()
}

fn json(answer: Answer) -> Value {
    serde_json::from_str(answer.unwrap().get()).unwrap()
}

fn dicom(real: &str) -> Server {
    Server { service: "DICOM-Modalities".into(), real_server: real.into() }
}

/// All of `wanted`'s keys are in `got`, with values of the same type; lists by their first element.
fn has_shape(got: &Value, wanted: &Value, at: &str) {
    match (got, wanted) {
        (Value::Object(got), Value::Object(wanted)) => {
            for (key, wanted) in wanted {
                let got = got.get(key).unwrap_or_else(|| panic!("{at}.{key} is missing"));
                has_shape(got, wanted, &format!("{at}.{key}"));
            }
        }
        (Value::Array(got), Value::Array(wanted)) => {
            let first = got.first().unwrap_or_else(|| panic!("{at} is empty"));
            has_shape(first, &wanted[0], &format!("{at}[0]"));
        }
        _ => assert_eq!(
            std::mem::discriminant(got),
            std::mem::discriminant(wanted),
            "{at}: {got} is not of the same type as {wanted}"
        ),
    }
}

#[test]
fn status_has_every_key_of_the_documented_sample() {
    let mut rig = Rig::new();
    rig.up();
    let sample = r#"{"version":"0.1.0","pid":1,"uptime_s":12,"config_hash":"…","heartbeat_age_ms":8,
        "interfaces":[{"name":"eth0","xdp_mode":"native"}],
        "services":[{"label":"DICOM-Modalities","address":"10.12.1.100","ports":"104,11112",
        "protocol":"tcp","forwarding_method":"dr","scheduler":"wlc","state":"green",
        "active_connections":2,"using_fallback":false,
        "real_servers":[{"label":"DICOM1","address":"10.12.1.110","port":null,"weight":100,
        "health":"up","admin":"online","effective":"in_rotation","active_connections":2,
        "last_check":{"at":"2026-11-20T10:00:00Z","result":"pass","phase":"echo",
        "detail":"C-ECHO-RSP 0000H","duration_ms":3.1},"changed_at":"2026-11-20T09:59:00Z"}]}]}"#;
    let status = json(ask(&mut rig, Command::Status));
    has_shape(&status, &serde_json::from_str(sample).unwrap(), "status");
    let real = &status["services"][0]["real_servers"][0];
    assert_eq!(real["health"], "up");
    assert_eq!(real["last_check"]["duration_ms"], 3.1);
    assert_eq!(real["last_check"]["at"], "2026-11-20T10:00:00Z");
    assert_eq!(status["services"][0]["state"], "green");
}

#[test]
fn stats_has_every_key_of_the_documented_sample() {
    let mut rig = Rig::new();
    let sample = r#"{"services":[{"label":"DICOM-Modalities","packets_in":0,"bytes_in":0,
        "packets_out":0,"bytes_out":0,"connections_total":0,"active_connections":0,
        "drops":{"no_usable_server":0},"real_servers":[{"label":"DICOM1","packets_in":0,
        "bytes_in":0,"packets_out":0,"bytes_out":0,"connections_total":0,
        "active_connections":0}]}],"verdicts":{"transmitted":0,"not_ours":0,"flow_table_full":0},
        "tables":{"flows_v4":{"entries":0,"capacity":262144}}}"#;
    let stats = json(ask(&mut rig, Command::Stats));
    has_shape(&stats, &serde_json::from_str(sample).unwrap(), "stats");
    assert_eq!(stats["services"][0]["real_servers"][0]["packets_in"], 10);
}

#[test]
fn a_failed_server_reaches_the_data_plane_in_the_same_turn_and_by_the_short_way() {
    let mut rig = Rig::new();
    rig.up();
    rig.daemon.on_health(vec![event("DICOM1", Health::Falling { n: 2 }, Health::Down)]);
    let told = rig.last_told();
    assert_eq!(told.servers, Some(vec![label("DICOM1")]));
    assert_eq!(told.health[&label("DICOM1")], Health::Down);
}

#[test]
fn an_event_about_a_server_that_is_gone_is_ignored() {
    let mut rig = Rig::new();
    rig.daemon.on_health(vec![event("DICOM9", Health::Unknown, Health::Up)]);
    assert!(rig.plane.told.lock().unwrap().is_empty());
}

#[test]
fn what_the_data_plane_refused_is_noted_and_tried_again_in_full() {
    let mut rig = Rig::new();
    *rig.plane.failures.lock().unwrap() = 1;
    rig.daemon.on_health(vec![event("DICOM1", Health::Unknown, Health::Up)]);
    let status = json(ask(&mut rig, Command::Status));
    assert!(status["notes"][0].as_str().unwrap().contains("the kernel refuses"), "{status}");
    rig.daemon.on_tick();
    assert_eq!(rig.last_told().servers, None);
    let status = json(ask(&mut rig, Command::Status));
    assert_eq!(status["notes"], Value::Array(vec![]));
    let applied = rig.plane.told.lock().unwrap().len();
    rig.daemon.on_tick();
    assert_eq!(rig.plane.told.lock().unwrap().len(), applied, "nothing is left to do");
}

#[test]
fn drain_is_applied_saved_and_shown() {
    let mut rig = Rig::new();
    rig.up();
    let changed = json(ask(&mut rig, Command::Drain(dicom("DICOM1"))));
    assert_eq!((&changed["from"], &changed["to"]), (&"online".into(), &"drain".into()));
    assert_eq!(changed["active_connections"], 2);
    assert_eq!(rig.last_told().admin[&label("DICOM1")], AdminState::Drain);
    let status = json(ask(&mut rig, Command::Status));
    assert_eq!(status["services"][0]["state"], "yellow");
    assert_eq!(status["services"][0]["real_servers"][0]["effective"], "draining");
    let saved = crate::admin::Store::open(rig.dir.path()).unwrap();
    assert_eq!(saved.state("DICOM-Modalities", "DICOM1"), AdminState::Drain);
    ask(&mut rig, Command::Online(dicom("DICOM1"))).unwrap();
    assert!(rig.last_told().admin.is_empty());
}

#[test]
fn unknown_names_are_answered_with_what_was_meant() {
    let mut rig = Rig::new();
    let failure = ask(&mut rig, Command::Drain(dicom("DICOM3"))).unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.message.contains("did you mean \"DICOM"), "{}", failure.message);
    let filter = Filter { service: Some("DICOM-Modalites".into()), limit: None };
    let failure = ask(&mut rig, Command::Connections(filter)).unwrap_err();
    assert!(failure.message.contains("did you mean \"DICOM-Modalities\""), "{}", failure.message);
}

#[test]
fn explain_says_why_a_server_is_out_and_shows_the_newest_check_first() {
    let mut rig = Rig::new();
    rig.up();
    rig.checks.views.lock().unwrap().insert(label("DICOM1"), view(Health::Down));
    let explained = json(ask(&mut rig, Command::Explain(dicom("DICOM1"))));
    assert_eq!(explained["real_server"]["effective"], "out");
    let reason = explained["reasons"][0].as_str().unwrap();
    assert!(reason.contains("connection refused"), "{reason}");
    assert_eq!(explained["history"][0]["detail"], "connection refused");
    assert_eq!(explained["check"], "connect (dw1), every 6s, time-out 3s, rise 2, fall 3");
}

#[test]
fn an_invalid_file_changes_nothing() {
    let mut rig = Rig::new();
    *rig.next.lock().unwrap() = Err("virtual_services[0].weight: not a number".into());
    let failure = ask(&mut rig, Command::Reload).unwrap_err();
    assert_eq!(failure.kind, FailureKind::InvalidConfiguration);
    assert!(rig.plane.told.lock().unwrap().is_empty());
    assert!(rig.network.told.lock().unwrap().is_empty());
    let status = json(ask(&mut rig, Command::Status));
    assert!(status["notes"][0].as_str().unwrap().contains("not a number"));
    assert_eq!(status["config_hash"], "c0ffee");
}

#[test]
fn a_reload_that_the_data_plane_refuses_is_taken_back() {
    let mut rig = Rig::new();
    rig.up();
    rig.next.lock().unwrap().as_mut().unwrap().config.services.clear();
    rig.next.lock().unwrap().as_mut().unwrap().config.hash = "new".into();
    *rig.plane.failures.lock().unwrap() = 1;
    assert!(ask(&mut rig, Command::Reload).unwrap_err().message.contains("the kernel refuses"));
    assert_eq!(rig.last_told().hash, "c0ffee");
    assert_eq!(*rig.network.told.lock().unwrap(), ["watch new", "watch c0ffee"]);
    assert!(rig.checks.followed.lock().unwrap().is_empty());
}

#[test]
fn a_reload_tells_all_rooms_and_says_what_changed() {
    let mut rig = Rig::new();
    rig.up();
    {
        let mut next = rig.next.lock().unwrap();
        let config = &mut next.as_mut().unwrap().config;
        config.services[0].real_servers.push(server("DICOM3", 112));
        config.services[0].real_servers[0].weight = 50;
        config.hash = "new".into();
    }
    let reloaded = json(ask(&mut rig, Command::Reload));
    let changes = reloaded["changes"].to_string();
    assert!(changes.contains("DICOM1 changed") && changes.contains("DICOM3 added"), "{changes}");
    assert_eq!(*rig.network.told.lock().unwrap(), ["watch new", "vips new"]);
    assert_eq!(*rig.checks.followed.lock().unwrap(), ["new"]);
    let again = json(ask(&mut rig, Command::Reload));
    assert_eq!(again["changed"], false);
}

#[test]
fn a_changed_entry_puts_a_drained_server_back_and_an_unchanged_one_stays() {
    let mut rig = Rig::new();
    rig.up();
    ask(&mut rig, Command::Drain(dicom("DICOM1"))).unwrap();
    ask(&mut rig, Command::Halt(dicom("DICOM2"))).unwrap();
    rig.next.lock().unwrap().as_mut().unwrap().config.services[0].real_servers[0].weight = 50;
    ask(&mut rig, Command::Reload).unwrap();
    let admin = rig.last_told().admin;
    assert_eq!(admin, [(label("DICOM2"), AdminState::Halt)].into());
}

#[test]
fn what_a_reload_cannot_change_is_refused_by_name() {
    let mut rig = Rig::new();
    rig.next.lock().unwrap().as_mut().unwrap().config.global.maximum_flows = 5000;
    rig.next.lock().unwrap().as_mut().unwrap().config.interfaces[0].name = "eth1".into();
    let failure = ask(&mut rig, Command::Reload).unwrap_err();
    let message = failure.message;
    assert!(message.contains("interfaces can only change with a restart"), "{message}");
    assert!(
        message.contains("global.maximum_flows can only change with `medlb teardown`"),
        "{message}"
    );
    assert!(rig.plane.told.lock().unwrap().is_empty());
}

#[test]
fn destinations_are_those_of_enabled_services_and_fallbacks() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = sample(dir.path());
    let address = "10.10.10.250".parse().unwrap();
    config.services[0].fallback_server =
        Some(config::model::FallbackServer { address, port: None });
    assert_eq!(destinations(&config).len(), 3);
    config.services[0].enabled = false;
    assert!(destinations(&config).is_empty());
}

/// The event loop with all its feeds, and a client over a real socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loop_serves_clients_reloads_at_sighup_and_stops_at_sigterm() {
    let mut rig = Rig::new();
    rig.up();
    rig.daemon.apply(Scope::Everything).unwrap();
    let socket = rig.dir.path().join("run/medlb.sock");
    let server = server::Server::bind(&socket, None).unwrap();
    let (calls_in, calls) = mpsc::channel(8);
    let serving = tokio::spawn(server.serve(calls_in));
    let (health_in, health) = mpsc::unbounded_channel();
    let (_network_in, network) = mpsc::unbounded_channel();
    let (orders_in, orders) = mpsc::unbounded_channel();
    let (checks, plane, next) = (rig.checks.clone(), rig.plane.clone(), rig.next.clone());
    let turning = tokio::spawn(async move {
        turn::run(&mut rig.daemon, Feeds { calls, health, network, orders }).await;
        rig
    });
    let path = socket.clone();
    let client = tokio::task::spawn_blocking(move || {
        let mut client = Client::connect(&path).unwrap();
        let down: Value = client.get(Command::Status).unwrap();
        assert_eq!(down["services"][0]["state"], "green");
        let checked: Value = client.get(Command::CheckNow(dicom("DICOM1"))).unwrap();
        assert_eq!(checked["health"], "up");
        let findings: Value = client.get(Command::Doctor).unwrap();
        assert!(findings.to_string().contains("rp_filter"), "{findings}");
        let list: Value = client.get(Command::Connections(Filter::default())).unwrap();
        assert_eq!(list["truncated"], false);
    });
    client.await.unwrap();

    checks.views.lock().unwrap().insert(label("DICOM1"), view(Health::Down));
    health_in.send(event("DICOM1", Health::Up, Health::Down)).unwrap();
    wait(|| plane.told.lock().unwrap().last().unwrap().health[&label("DICOM1")] == Health::Down)
        .await;

    next.lock().unwrap().as_mut().unwrap().config.hash = "new".into();
    orders_in.send(Order::Reload).unwrap();
    wait(|| plane.told.lock().unwrap().last().unwrap().hash == "new").await;

    orders_in.send(Order::Stop).unwrap();
    let rig = tokio::time::timeout(Duration::from_secs(5), turning).await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
    assert!(!socket.exists(), "the socket is removed");
    drop(rig);
}

async fn wait(mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing happened within 5 s");
}
