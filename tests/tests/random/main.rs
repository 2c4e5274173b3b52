//! Millions of random frames through the loaded program: it never fails, leaves alone what is not
//! medlb's, counts every packet, and never makes a right checksum wrong.
//!
//! `MEDLB_RANDOM_PACKETS` and `MEDLB_RANDOM_SEED` ask for another run; with `MEDLB_RANDOM_BATCH=1`
//! counters are read after every frame, which finds the one that was miscounted.

mod frames;
mod oracle;

use std::net::IpAddr;

use frames::{Source, own, vip};
use lb_common::abi::*;
use tests::plane::expect::hex;
use tests::plane::{Action, INGRESS, Plane, Totals, real_mac, rip, words};

const PACKETS: u64 = 2_000_000;
const SEED: u64 = 20_261_121;
const BATCH: u64 = 500;
/// Real servers of one family; those of IPv6 come behind those of IPv4.
const REALS: u32 = 13;
const SERVICES: u32 = 9;

fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// A world with every mode in both families, and tables small enough to be full now and then.
fn world() -> Plane {
    let mut p = Plane::load(256).expect("the object loads");
    p.egress(2, INGRESS).expect("a device map");
    for v6 in [false, true] {
        family(&mut p, v6).expect("maps are writable");
    }
    p
}

fn family(p: &mut Plane, v6: bool) -> anyhow::Result<()> {
    let (r, s) = if v6 { (REALS, SERVICES) } else { (0, 0) };
    let services: [(u32, u8, u8, &[u32]); 8] = [
        (1, mode::DR, Select::LEAST, &[1, 2]),
        (2, mode::NAT, Select::CURSOR, &[3, 4]),
        (3, mode::SNAT, Select::LEAST, &[5, 6]),
        (4, mode::DR, Select::HASH, &[7, 8]),
        (5, mode::NAT, Select::LEAST, &[]),
        (6, mode::NAT, Select::FIRST, &[9]), // the same server as number 2's
        (7, mode::SNAT, Select::LEAST, &[]), // with a fallback server
        (8, mode::SNAT, Select::LEAST, &[11, 12]),
    ];
    for (index, mode, select, reals) in services {
        let slots: Vec<_> = reals.iter().map(|real| (real + r, 1 + real % 2)).collect();
        let mut service = p.service(index + s, mode, select, &slots)?;
        service.source = words(own(v6));
        service.snat_count = 48;
        (service.idle, service.half_open, service.closing, service.udp_idle) = (40, 10, 5, 20);
        if index == 4 {
            service.flags |= service_flags::PERSISTENT;
            service.persist = 30;
            service.persist_mask = [Be32::from_raw(u32::MAX); 4];
        }
        if index == 7 {
            service.fallback = 10 + r;
        }
        p.set_service(index + s, service)?;
        for real in reals.iter().chain((index == 7).then_some(&10)) {
            let address = rip(if *real == 9 { 3 } else { *real } + r, v6);
            let made = p.real(real + r, index + s, mode, address)?;
            p.set_real(real + r, shaped(made, *real))?;
        }
    }
    let port = |protocol, port, service: u32| (protocol, port, port, service + s);
    p.vip(
        vip(v6),
        &[
            port(6, 9, 5),
            port(6, 80, 3),
            port(6, 90, 7),
            port(6, 104, 1),
            port(6, 443, 2),
            port(6, 444, 6),
            port(6, 8080, 8),
            port(17, 9, 5),
            port(17, 80, 3),
            port(17, 90, 7),
            port(17, 443, 2),
            port(17, 444, 6),
            port(17, 514, 4),
            port(17, 8081, 8),
        ],
    )?;
    p.mark(own(v6), FilterBit::VIP)?;
    check(p, v6)
}

/// A health check through the VIP is under way.
fn check(p: &mut Plane, v6: bool) -> anyhow::Result<()> {
    let (sport, dport) = (Be16::new(104), Be16::new(50_000));
    match (vip(v6), own(v6), rip(1, v6)) {
        (IpAddr::V4(src), IpAddr::V4(dst), IpAddr::V4(real)) => {
            let key = FlowKey { src: AddrV4::from(src), dst: dst.into(), sport, dport };
            p.hash("CHECKS_V4")?.insert(key, AddrV4::from(real), 0)?;
        }
        (IpAddr::V6(src), IpAddr::V6(dst), IpAddr::V6(real)) => {
            let key = FlowKey { src: AddrV6::from(src), dst: dst.into(), sport, dport };
            p.hash("CHECKS_V6")?.insert(key, AddrV6::from(real), 0)?;
        }
        _ => unreachable!("one family"),
    }
    Ok(())
}

/// Peculiarities of some real servers: another port, another interface, a VLAN.
fn shaped(mut real: Real, number: u32) -> Real {
    match number {
        3 | 9 => real.port = Be16::new(8443),
        11 => (real.interface, real.ifindex, real.vlan) = (2, 99, 7),
        12 => (real.interface, real.ifindex) = (3, 98), // nowhere to be redirected to
        _ => {}
    }
    real
}

/// Something happens to a real server, or time passes.
fn event(p: &mut Plane, source: &mut Source) {
    let rng = &mut source.rng;
    let number = rng.u32(1..REALS);
    let index = number + if rng.bool() { REALS } else { 0 };
    let mut real = p.real_record(index).expect("maps are readable");
    real.dst_mac = real_mac(index).into();
    real.flags = real_flags::ACCEPT | real_flags::NEIGHBOUR;
    (real.maximum_connections, real.mtu) = (0, 0);
    match rng.u8(..12) {
        0 => real.flags = real_flags::NEIGHBOUR,
        1 => real.flags = real_flags::NEIGHBOUR | real_flags::RESET,
        2 => real.flags = real_flags::ACCEPT,
        3 => real.maximum_connections = rng.u32(1..20),
        4 => real.mtu = rng.u32(60..400),
        5 => real.flags = real_flags::NEIGHBOUR | real_flags::ACCEPT_PERSISTENT,
        _ => {}
    }
    p.set_real(index, real).expect("maps are writable");
    if rng.u8(..4) == 0 {
        p.advance(rng.u32(..30)).expect("maps are writable");
    }
}

/// What came of the frames of one batch, seen from outside.
#[derive(Default, Debug, PartialEq, Eq)]
struct Batch {
    passed: u64,
    altered: u64,
    dropped: u64,
    sent: u64,
}

impl Batch {
    fn saw(&mut self, action: Action, altered: bool) {
        match action {
            Action::Aborted | Action::Drop => self.dropped += 1,
            Action::Pass => {
                self.passed += 1;
                self.altered += u64::from(altered);
            }
            Action::Tx | Action::Redirect => self.sent += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.altered += other.altered;
        self.dropped += other.dropped;
        self.sent += other.sent;
    }

    /// The same by the program's own account.
    fn counted(before: &Totals, after: &Totals) -> Self {
        let moved = |v: Verdict| after.verdicts[v as usize] - before.verdicts[v as usize];
        let of = |action| {
            let all = Verdict::ALL.into_iter().filter(|v| v.action() == action);
            all.map(moved).sum::<u64>()
        };
        // Counted beside the answer that the sender gets, or beside a transmitted packet.
        let beside = moved(Verdict::NoUsableServer)
            + moved(Verdict::FlowTableFull)
            + moved(Verdict::SnatPortsExhausted)
            + moved(Verdict::Stateless);
        Self {
            passed: of(lb_common::abi::Action::Pass),
            altered: moved(Verdict::CheckAnswer),
            dropped: of(lb_common::abi::Action::Drop) - beside,
            // A packet that could not be redirected was counted at its real server already.
            sent: of(lb_common::abi::Action::Reflect) + after.packets
                - before.packets
                - moved(Verdict::RedirectFailed),
        }
    }
}

/// What came out of a frame whose checksums are right has right ones too, and is the same protocol
/// or an ICMP answer.
fn judged(frame: &[u8], out: &[u8]) -> Result<(), &'static str> {
    let Some(found) = oracle::parse(frame).filter(|found| found.is_valid(frame)) else {
        return Ok(());
    };
    let made = oracle::parse(out).ok_or("makes no sense any more")?;
    if !made.is_valid(out) {
        return Err("a checksum is wrong");
    }
    if made.protocol != found.protocol && !matches!(made.protocol, 1 | 58) {
        return Err("another protocol");
    }
    Ok(())
}

#[test]
fn millions_of_random_frames_are_answered_rightly_and_counted() {
    let (packets, seed) =
        (asked("MEDLB_RANDOM_PACKETS", PACKETS), asked("MEDLB_RANDOM_SEED", SEED));
    let size = asked("MEDLB_RANDOM_BATCH", BATCH);
    let mut plane = world();
    let mut source = Source::new(seed);
    let mut out = Vec::new();
    let reals = 2 * REALS;
    let mut before = plane.totals(reals).expect("maps are readable");
    let (mut batch, mut all) = (Batch::default(), Batch::default());
    for number in 1..=packets {
        let frame = source.draw();
        let action = plane.run_into(&frame, &mut out).expect("PROG_TEST_RUN works");
        let say = |what: &str| {
            format!(
                "seed {seed}, frame {number}: {what}\n in {}\nout {}",
                hex(&frame[..frame.len().min(160)]),
                hex(&out[..out.len().min(160)])
            )
        };
        assert_ne!(action, Action::Aborted, "{}", say("the program failed"));
        batch.saw(action, out != frame);
        if matches!(action, Action::Tx | Action::Redirect) && source.rng.u8(..4) == 0 {
            source.saw(&out);
        }
        if action != Action::Drop
            && let Err(what) = judged(&frame, &out)
        {
            panic!("{}", say(what));
        }
        if number % BATCH == 0 {
            event(&mut plane, &mut source);
        }
        if number % size == 0 || number == packets {
            let after = plane.totals(reals).expect("maps are readable");
            let counted = Batch::counted(&before, &after);
            if batch != counted {
                let moved = after.moved(&before);
                panic!("{}\nseen {batch:?}, counted {counted:?}: {moved:?}", say("miscounted"));
            }
            all.add(&batch);
            (before, batch) = (after, Batch::default());
        }
    }
    println!("{all:?}, {:?}", before.verdicts);
    // The run is worth something only if it got everywhere.
    for verdict in Verdict::ALL.into_iter().filter(|_| packets >= PACKETS) {
        assert_ne!(before.verdicts[verdict as usize], 0, "{} never came", verdict.name());
    }
}
