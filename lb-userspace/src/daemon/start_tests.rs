use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::seams::Next;
use super::super::testing::*;
use super::*;
use crate::api::client::Client;
use crate::api::protocol::Command;
use crate::net::Path;

struct Stage {
    dir: tempfile::TempDir,
    plane: FakePlane,
    network: FakeNetwork,
    checks: FakeChecks,
    undone: Arc<AtomicBool>,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (plane, network, checks) = Default::default();
        Self { dir, plane, network, checks, undone: Arc::default() }
    }

    fn plan(&self) -> Plan {
        let config = sample(self.dir.path());
        let socket = config.global.socket.clone();
        let load = Box::new(|| Err("no file".to_owned()));
        Plan { config, path: "/etc/medlb.yaml".into(), load, socket }
    }

    /// Opened rooms, and the network's side of the path events.
    fn opened(
        &self,
    ) -> (Opened<FakePlane, FakeNetwork, FakeChecks>, mpsc::UnboundedSender<NetworkEvent>) {
        let (sender, network) = mpsc::unbounded_channel();
        let undone = self.undone.clone();
        let opened = Opened {
            rooms: Rooms {
                plane: self.plane.clone(),
                network: self.network.clone(),
                checks: self.checks.clone(),
            },
            health: mpsc::unbounded_channel().1,
            network,
            undo: Box::new(move || undone.store(true, Ordering::Relaxed)),
            adopted: false,
        };
        (opened, sender)
    }
}

fn all_paths(config: &Config) -> NetworkEvent {
    let path = Path {
        ifindex: 2,
        vlan: 0,
        src_mac: [2; 6],
        dst_mac: Some([4; 6]),
        on_link: true,
        source: None,
    };
    let next = Next { path: Some(path), problem: None };
    let known = destinations(config).into_iter().map(|address| (address, next.clone()));
    NetworkEvent::Paths(known.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_is_ready_when_its_socket_answers_and_addresses_follow_the_data_plane() {
    let stage = Stage::new();
    let plan = stage.plan();
    let socket = plan.socket.clone();
    let (opened, paths) = stage.opened();
    paths.send(all_paths(&plan.config)).unwrap();
    let running = tokio::spawn(run(plan, async move |_: &Config| Ok(opened)));
    let answered = tokio::task::spawn_blocking(move || {
        for _ in 0..500 {
            if let Ok(mut client) = Client::connect(&socket) {
                return client.get::<serde_json::Value>(Command::Status).unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no answer within 5 s");
    });
    let status = answered.await.unwrap();
    assert_eq!(status["services"][0]["label"], "DICOM-Modalities");
    assert_eq!(stage.plane.told.lock().unwrap()[0].servers, None);
    assert_eq!(*stage.network.told.lock().unwrap(), ["watch c0ffee", "vips c0ffee"]);
    assert_eq!(*stage.checks.followed.lock().unwrap(), ["c0ffee"]);
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    assert!(!stage.undone.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_start_that_the_data_plane_refuses_is_taken_back() {
    let stage = Stage::new();
    let plan = stage.plan();
    let socket = plan.socket.clone();
    *stage.plane.failures.lock().unwrap() = 1;
    let (opened, paths) = stage.opened();
    paths.send(all_paths(&plan.config)).unwrap();
    let error = run(plan, async move |_: &Config| Ok(opened)).await.unwrap_err();
    assert!(error.to_string().contains("the kernel refuses"), "{error:#}");
    assert!(stage.undone.load(Ordering::Relaxed));
    assert!(!socket.exists());
    assert_eq!(*stage.network.told.lock().unwrap(), ["watch c0ffee"], "no address was added");
}

#[tokio::test]
async fn a_second_daemon_touches_nothing() {
    let stage = Stage::new();
    let _first = lock::take(stage.dir.path()).unwrap();
    let opening = Arc::new(AtomicBool::new(false));
    let opened = opening.clone();
    let open =
        async move |_: &Config| -> anyhow::Result<Opened<FakePlane, FakeNetwork, FakeChecks>> {
            opened.store(true, Ordering::Relaxed);
            anyhow::bail!("not reached")
        };
    let error = run(stage.plan(), open).await.unwrap_err();
    assert!(error.to_string().contains("already running"), "{error:#}");
    assert!(!opening.load(Ordering::Relaxed));
}

#[tokio::test]
async fn silent_next_hops_delay_a_start_but_do_not_prevent_it() {
    let stage = Stage::new();
    let plan = stage.plan();
    let (opened, _paths) = stage.opened();
    let plane = stage.plane.clone();
    let running = tokio::spawn(run(plan, async move |_: &Config| Ok(opened)));
    while plane.told.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!running.is_finished());
    }
    running.abort();
}
