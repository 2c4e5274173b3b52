use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::*;
use crate::config::model::{HealthCheck, OnBusy};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn check(kind: CheckKind, interval: u64, rise: u32, fall: u32) -> Arc<HealthCheck> {
    let interval = Duration::from_millis(interval);
    let timeout = Duration::from_millis(400);
    Arc::new(HealthCheck {
        name: None,
        kind,
        interval,
        timeout,
        rise,
        fall,
        port: None,
        via_rip: false,
    })
}

fn target(service: &str, real: &str, port: u16, check: &Arc<HealthCheck>) -> Target {
    Target {
        service: service.into(),
        real: real.into(),
        rip: LOOPBACK,
        port,
        vip: "10.12.1.100".parse().unwrap(),
        vip_port: 104,
        rpt: port,
        dr: false,
        check: check.clone(),
    }
}

/// A listener that counts its connections and holds each until the check closes it.
async fn listener() -> (u16, Arc<AtomicUsize>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move { while let Ok(1..) = stream.read(&mut [0; 64]).await {} });
        }
    });
    (port, count, task)
}

async fn next(events: &mut mpsc::UnboundedReceiver<Event>) -> Event {
    timeout(Duration::from_secs(5), events.recv()).await.expect("an event").expect("a runner")
}

fn server(service: &str, real: &str) -> Server {
    (service.into(), real.into())
}

#[tokio::test]
async fn a_server_comes_up_falls_and_goes_down_with_events_that_say_why() {
    let (handle, mut events) = Runner::start(Options::default());
    let (port, _, listening) = listener().await;
    handle.set_targets(vec![target("A", "one", port, &check(CheckKind::Connect, 100, 2, 2))]);
    let up = next(&mut events).await;
    assert_eq!((up.service.as_str(), up.real.as_str()), ("A", "one"));
    assert_eq!((up.old, up.new), (Health::Unknown, Health::Up));
    listening.abort();
    let falling = next(&mut events).await;
    assert_eq!((falling.old, falling.new), (Health::Up, Health::Falling { n: 1 }));
    let down = next(&mut events).await;
    assert_eq!((down.old, down.new), (Health::Falling { n: 1 }, Health::Down));
    assert_eq!(down.view.history.last().unwrap().detail, "connection refused");
    assert_eq!(handle.views()[&server("A", "one")].health, Health::Down);
}

#[tokio::test]
async fn identical_checks_of_several_services_run_once_and_feed_all() {
    let (handle, mut events) = Runner::start(Options::default());
    let (port, count, _task) = listener().await;
    let one = check(CheckKind::Connect, 300, 2, 3);
    let same = Arc::new(HealthCheck { name: Some("named".into()), ..(*one).clone() });
    handle.set_targets(vec![target("A", "x", port, &one), target("B", "y", port, &same)]);
    let mut seen = [next(&mut events).await.service, next(&mut events).await.service];
    seen.sort();
    assert_eq!(seen, ["A", "B"]);
    sleep(Duration::from_millis(1500)).await;
    let views = handle.views();
    let (a, b) = (&views[&server("A", "x")], &views[&server("B", "y")]);
    assert_eq!(a, b);
    let connections = count.load(Ordering::Relaxed);
    // One may be under way.
    let once = a.history.len()..=a.history.len() + 1;
    assert!(
        once.contains(&connections),
        "{connections} connections for {} outcomes",
        a.history.len()
    );
}

#[test]
fn keys_tell_apart_what_must_run_apart() {
    let plain = check(CheckKind::Connect, 1000, 2, 3);
    let base = target("A", "x", 104, &plain);
    let other = |change: &dyn Fn(&mut Target)| {
        let mut other = base.clone();
        change(&mut other);
        other.key()
    };
    assert_eq!(base.key(), other(&|t| t.service = "B".into()));
    assert_eq!(base.key(), other(&|t| t.vip = "10.0.0.9".parse().unwrap()), "the RIP is checked");
    assert_ne!(base.key(), other(&|t| t.port = 105));
    assert_ne!(base.key(), other(&|t| t.rip = "127.0.0.2".parse().unwrap()));
    assert_ne!(base.key(), other(&|t| t.dr = true), "through the VIP or not");
    assert_ne!(base.key(), other(&|t| t.check = check(CheckKind::Connect, 1000, 2, 4)));
    let through = |vip: &str| other(&|t| (t.dr, t.vip) = (true, vip.parse().unwrap()));
    assert_ne!(through("10.0.0.1"), through("10.0.0.2"));
    let script = CheckKind::External { command: vec!["/x".into()], user: "nobody".into() };
    let script = check(script, 1000, 2, 3);
    let of = |service: &str| other(&|t| (t.service, t.check) = (service.into(), script.clone()));
    assert_ne!(of("A"), of("B"), "a script is told the service");
    let ping = check(CheckKind::Ping { count: 1 }, 1000, 2, 3);
    let on = |port: u16| other(&|t| (t.port, t.check) = (port, ping.clone()));
    assert_eq!(on(104), on(105), "a ping has no port");
}

#[tokio::test]
async fn a_reload_leaves_unchanged_checks_alone_and_changed_ones_their_verdict() {
    let (handle, mut events) = Runner::start(Options::default());
    let (port, _, _task) = listener().await;
    let (other_port, _, _other) = listener().await;
    let slow = check(CheckKind::Connect, 60_000, 2, 3);
    let stays = target("A", "stays", port, &slow);
    let changes = target("A", "changes", other_port, &check(CheckKind::Connect, 50, 2, 3));
    handle.set_targets(vec![stays.clone(), changes.clone()]);
    next(&mut events).await;
    next(&mut events).await;
    let before = handle.view("A", "stays").unwrap();
    let altered = check(CheckKind::Connect, 60_000, 5, 2);
    let moved = target("A", "moves", port, &slow);
    handle.set_targets(vec![moved, stays, Target { check: altered, ..changes }]);
    // A newcomer to a check that is judged gets the verdict at once.
    let event = next(&mut events).await;
    assert_eq!((event.real.as_str(), event.old, event.new), ("moves", Health::Unknown, Health::Up));
    assert_eq!(handle.view("A", "stays").unwrap(), before);
    let changed = handle.view("A", "changes").unwrap();
    assert_eq!(changed.health, Health::Up);
    assert!(!changed.history.is_empty());
    assert_eq!(handle.views().len(), 3);
    handle.set_targets(Vec::new());
    assert!(handle.views().is_empty());
    assert!(handle.check_now("A", "stays").await.is_none());
}

#[tokio::test]
async fn a_server_with_another_address_starts_unknown() {
    let (handle, mut events) = Runner::start(Options::default());
    let (port, _, _task) = listener().await;
    let slow = check(CheckKind::Connect, 60_000, 2, 3);
    handle.set_targets(vec![target("A", "x", port, &slow)]);
    next(&mut events).await;
    let elsewhere = Target { rip: "127.0.0.9".parse().unwrap(), ..target("A", "x", port, &slow) };
    handle.set_targets(vec![elsewhere]);
    assert_eq!(handle.view("A", "x").unwrap().health, Health::Unknown);
}

#[tokio::test]
async fn check_now_answers_at_once_and_counts() {
    let (handle, _events) = Runner::start(Options::default());
    let (port, _, _task) = listener().await;
    let slow = check(CheckKind::Connect, 60_000, 2, 3);
    // The second target's first check would come after half a minute.
    handle.set_targets(vec![target("A", "x", port, &slow), target("A", "y", port + 1, &slow)]);
    let started = Instant::now();
    let outcome = handle.check_now("A", "y").await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(handle.view("A", "y").unwrap().history, [outcome]);
    assert!(handle.check_now("A", "nobody").await.is_none());
}

#[tokio::test]
async fn first_checks_are_spread_over_one_interval() {
    let (handle, mut events) = Runner::start(Options::default());
    let listeners = futures_util::future::join_all((0..5).map(|_| listener())).await;
    let every_second = check(CheckKind::Connect, 1000, 2, 3);
    let targets = listeners.iter().enumerate();
    let targets = targets.map(|(i, (port, ..))| target("A", &i.to_string(), *port, &every_second));
    let started = Instant::now();
    handle.set_targets(targets.collect());
    let mut times = Vec::new();
    for _ in 0..5 {
        next(&mut events).await;
        times.push(started.elapsed().as_millis());
    }
    for (nth, time) in (0u128..).zip(&times) {
        assert!(*time >= nth * 200, "check {nth} was judged after {time} ms");
    }
    assert!(times[0] < 400 && times[4] < 1400, "{times:?}");
}

#[tokio::test]
async fn a_hundred_that_hang_do_not_delay_the_others() {
    let (handle, mut events) = Runner::start(Options::default());
    let deaf = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let deaf_port = deaf.local_addr().unwrap().port();
    let (port, count, _task) = listener().await;
    let hangs = |n: usize| {
        let kind = CheckKind::DicomEcho {
            calling_ae: "LB".into(),
            called_ae: format!("HANG{n}"),
            tls: None,
            on_busy: OnBusy::Up,
            accept_association: false,
        };
        target("A", &format!("hangs{n}"), deaf_port, &check(kind, 200, 2, 1))
    };
    let mut targets: Vec<_> = (0..100).map(hangs).collect();
    targets.push(target("A", "works", port, &check(CheckKind::Connect, 200, 2, 1)));
    handle.set_targets(targets);
    sleep(Duration::from_secs(3)).await;
    let probes = count.load(Ordering::Relaxed);
    assert!((8..=17).contains(&probes), "{probes} probes of the good server in 3 s at 200 ms");
    let view = handle.view("A", "works").unwrap();
    assert_eq!(view.health, Health::Up);
    assert!(view.history.iter().all(|o| o.duration < Duration::from_millis(350)), "{view:?}");
    let down = handle.views().values().filter(|v| v.health == Health::Down).count();
    assert_eq!(down, 100);
    assert!(events.try_recv().is_ok());
}

#[tokio::test]
async fn the_answer_of_a_check_that_was_taken_away_meets_nobody() {
    let (handle, _events) = Runner::start(Options::default());
    let deaf = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = deaf.local_addr().unwrap().port();
    let kind = CheckKind::Http {
        tls: None,
        path: "/".into(),
        method: "GET".into(),
        host: None,
        status: vec![200..=399],
        body: None,
    };
    let old = target("A", "x", port, &check(kind, 60_000, 2, 1));
    handle.set_targets(vec![old.clone()]);
    sleep(Duration::from_millis(100)).await;
    handle.set_targets(Vec::new());
    handle.set_targets(vec![old]);
    sleep(Duration::from_millis(450)).await;
    let view = handle.view("A", "x").unwrap();
    assert!(view.history.len() <= 1, "only the new check's own outcome: {view:?}");
}

#[tokio::test]
async fn the_mark_is_asked_for_where_a_check_goes_through_the_vip_only() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = asked.clone();
    let mark_for: MarkFor = Arc::new(move |target: &Target| {
        notes.lock().unwrap().push(target.real.clone());
        None
    });
    let (handle, _events) = Runner::start(Options { mark_for: Some(mark_for) });
    let through = check(CheckKind::Connect, 50, 2, 3);
    let direct = Arc::new(HealthCheck { via_rip: true, ..(*through).clone() });
    handle.set_targets(vec![
        Target { dr: true, ..target("A", "dr", 1, &through) },
        Target { dr: true, ..target("A", "dr-via-rip", 2, &direct) },
        target("A", "nat", 3, &through),
    ]);
    sleep(Duration::from_millis(400)).await;
    let asked = asked.lock().unwrap();
    assert!(asked.len() > 1, "for every probe: marks may change");
    assert!(asked.iter().all(|real| real == "dr"), "{asked:?}");
}

#[tokio::test]
async fn ten_thousand_servers_keep_their_health_over_a_reload() {
    let (handle, mut events) = Runner::start(Options::default());
    let none = check(CheckKind::None, 60_000, 2, 3);
    let service = |n: usize| format!("service {}", n / 10);
    let rip = |n: usize| IpAddr::from([10, 1, (n / 250) as u8, (n % 250) as u8]);
    let make = |n| Target { rip: rip(n), ..target(&service(n), &n.to_string(), 104, &none) };
    let targets: Vec<_> = (0..10_000).map(make).collect();
    handle.set_targets(targets.clone());
    for _ in 0..10_000 {
        next(&mut events).await;
    }
    handle.set_targets(targets);
    let views = handle.brief_views();
    assert_eq!(views.len(), 10_000);
    assert!(views.values().all(|view| view.health == Health::Up && view.history.len() == 1));
    assert!(events.try_recv().is_err(), "nothing changed");
}

/// A DICOM server that accepts everything; its answers are written out, so that it costs little.
async fn archive() -> u16 {
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(stream));
        }
    });
    port
}

async fn answer(mut stream: tokio::net::TcpStream) {
    const CONTEXT: &[u8] = b"\x21\0\0\x19\x01\0\0\0\x40\0\0\x111.2.840.10008.1.2";
    const APPLICATION: &[u8] = b"\x10\0\0\x151.2.840.10008.3.1.1.1";
    const USER: &[u8] = b"\x50\0\0\x08\x51\0\0\x04\0\0\x40\0";
    const RESPONSE: &[u8] = b"\0\0\0\x01\x02\0\0\0\x30\x80\0\0\x20\x01\x02\0\0\0\x01\0\
                              \0\0\0\x08\x02\0\0\0\x01\x01\0\0\0\x09\x02\0\0\0\0\0";
    let pdu = |kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind, 0], &length[..], body].concat()
    };
    let names = [&[0, 1, 0, 0][..], &[b' '; 32], &[0; 32]].concat();
    let accept = pdu(2, &[&names, APPLICATION, CONTEXT, USER].concat());
    let length = u32::try_from(RESPONSE.len() + 2).unwrap().to_be_bytes();
    let response = pdu(4, &[&length, &[1, 3][..], RESPONSE].concat());
    let released = pdu(6, &[0; 4]);
    let mut request = [0; 1024];
    while let Ok(1..) = stream.read(&mut request).await {
        let reply = match request[0] {
            1 => &accept,
            4 => &response,
            _ => &released,
        };
        stream.write_all(reply).await.unwrap();
    }
}

/// The checks run on a thread of their own, whose processor time is read; the servers' does not
/// count. The budget is a tenth of a core; what fails here is a mistake of another order, since
/// times vary with the machine.
#[test]
fn a_thousand_checks_every_five_seconds_all_run_and_take_little_of_a_core() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (give_ports, ports) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let (port, _, task) = listener().await;
            give_ports.send((port, archive().await)).unwrap();
            task.await.unwrap();
        });
    });
    let (port, archive) = ports.recv().unwrap();
    let checks = std::thread::spawn(move || {
        runtime().block_on(async {
            let (handle, _events) = Runner::start(Options::default());
            // `fall` makes the checks differ, so that none is shared.
            let connect =
                |n: u32| target("A", &n.to_string(), port, &check(CheckKind::Connect, 5000, 2, n));
            let echo = |n: u32| {
                let kind = CheckKind::DicomEcho {
                    calling_ae: "LB".into(),
                    called_ae: format!("ARCHIVE{n}"),
                    tls: None,
                    on_busy: OnBusy::Up,
                    accept_association: false,
                };
                target("A", &n.to_string(), archive, &check(kind, 5000, 2, 3))
            };
            handle.set_targets((0..500).map(echo).chain((500..1000).map(connect)).collect());
            let (cpu, wall) = (thread_time(), Instant::now());
            sleep(Duration::from_secs(10)).await;
            let share = (thread_time() - cpu).as_secs_f64() / wall.elapsed().as_secs_f64();
            (share, handle.views())
        })
    });
    let (share, views) = checks.join().unwrap();
    let up = views.values().filter(|view| view.health == Health::Up).count();
    assert_eq!((views.len(), up), (1000, 1000));
    let outcomes: usize = views.values().map(|view| view.history.len()).sum();
    assert!(outcomes >= 1500, "{outcomes} outcomes in 10 s");
    println!("{:.2} % of a core, {outcomes} outcomes in 10 s", share * 100.0);
    assert!(share <= 0.40, "{:.1} % of a core", share * 100.0);
}

fn thread_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}
