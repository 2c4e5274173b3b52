//! What is measured: scenes, each a data plane with its flows, and the rows that are measured on it.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lb_common::abi::*;
use lb_common::packet::rewrite::Deltas;
use lb_common::policy::tcp::state;

use super::Row;
use super::statistics::Summary;
use super::stopwatch::{Lap, Stopwatch};
use super::yardstick::Round;
use crate::plane::frame::{ACK, Frame, RST, SYN};
use crate::plane::pieces::fragment_v4;
use crate::plane::{Action, CLIENT_MAC, INGRESS, LB_MAC, Plane, rip, words};

/// How large the tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Up to 65,536 flows in a table for a million.
    Small,
    /// And a million flows.
    Full,
}

/// The table that flows lie in: "a million" is 2^20 here.
const MILLION: u32 = 1 << 20;
const MANY: u32 = 1 << 16;
/// What `maximum_half_open` is when the file does not say.
const HALF_OPEN: u32 = 65_536;
/// More than the half-open table holds, so that every SYN is the first of its connection.
const NEW: u32 = 1 << 22;
const VIP_V4: &str = "10.0.0.100:104";
const VIP_V6: &str = "[fd00::100]:104";
/// A source address whose last two octets the shim counts in.
const CLIENT_V4: &str = "172.16.0.0:0";
const CLIENT_V6: &str = "[fd00:c::]:0";
const SNAT_V4: &str = "10.0.0.2";

/// One data plane to be set up.
pub struct Scene {
    /// For people.
    pub name: String,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Flows in the table, in this mode: how many.
    Established {
        mode: u8,
        flows: u32,
    },
    EstablishedV6,
    Udp,
    /// New connections.
    Opening,
    /// Packets that are not forwarded.
    Aside,
}

/// A data plane, set up, and its rows.
pub struct Stage {
    plane: Plane,
    group: &'static str,
    shots: Vec<Shot>,
}

/// One row to be measured.
struct Shot {
    name: String,
    frame: Vec<u8>,
    /// What the shim makes of the frame; none: no shim, the program leaves alone what it reads.
    round: Option<Round>,
    budget: Option<f64>,
    action: Action,
    /// What each packet is counted as, if it is not simply forwarded.
    verdict: Option<Verdict>,
}

impl Scene {
    /// All of them.
    pub fn all(scale: Scale) -> Vec<Self> {
        let mut all = Vec::new();
        for (mode, name) in MODES {
            let kind = Kind::Established { mode, flows: MANY };
            all.push(Self { name: format!("established {name}, up to 65,536 flows"), kind });
        }
        all.push(Self { name: "established dr, ipv6".into(), kind: Kind::EstablishedV6 });
        all.push(Self { name: "udp dr".into(), kind: Kind::Udp });
        all.push(Self { name: "opening".into(), kind: Kind::Opening });
        all.push(Self { name: "not forwarded".into(), kind: Kind::Aside });
        if scale == Scale::Full {
            for (mode, name) in MODES {
                let kind = Kind::Established { mode, flows: MILLION };
                all.push(Self { name: format!("established {name}, 1,048,576 flows"), kind });
            }
        }
        all
    }

    /// Sets it up.
    pub fn stage(&mut self) -> Result<Stage> {
        match self.kind {
            Kind::Established { mode, flows } => established(mode, flows),
            Kind::EstablishedV6 => established_v6(),
            Kind::Udp => udp(),
            Kind::Opening => opening(),
            Kind::Aside => aside(),
        }
    }
}

const MODES: [(u8, &str); 3] = [(mode::DR, "dr"), (mode::NAT, "nat"), (mode::SNAT, "snat")];

impl Stage {
    /// Measures every row, round by round, the yardstick before each.
    pub fn measure(
        mut self,
        watch: &mut Stopwatch,
        rounds: usize,
        only: Option<&str>,
        yardstick: &mut Vec<f64>,
    ) -> Result<Vec<Row>> {
        self.shots.retain(|shot| {
            only.is_none_or(|only| shot.name.contains(only) || self.group.contains(only))
        });
        if self.shots.is_empty() {
            return Ok(Vec::new());
        }
        let mut laps: Vec<Vec<Lap>> = vec![Vec::new(); self.shots.len()];
        for round in 0..=rounds {
            for (shot, laps) in self.shots.iter().zip(&mut laps) {
                let lap = shot
                    .run(&mut self.plane, watch)
                    .with_context(|| format!("{}: {}", self.group, shot.name))?;
                if round > 0 {
                    laps.push(lap); // the first round warms up
                }
            }
        }
        let row = |(shot, laps): (Shot, Vec<Lap>)| {
            let of = |value: fn(&Lap) -> f64| laps.iter().map(value).collect::<Vec<_>>();
            yardstick.extend(of(|lap| lap.mac_swap));
            Row {
                group: self.group,
                name: shot.name,
                budget: shot.budget,
                ns: Summary::of(&of(|lap| lap.packet)),
                ratio: Summary::of(&of(|lap| lap.packet / lap.mac_swap)),
                shim_ns: Summary::of(&of(|lap| lap.shim)).median,
            }
        };
        Ok(self.shots.into_iter().zip(laps).map(row).collect())
    }
}

impl Shot {
    /// A packet that is forwarded.
    fn new(
        name: impl Into<String>,
        frame: &Frame,
        round: Option<Round>,
        budget: Option<f64>,
    ) -> Self {
        let (action, verdict) = (Action::Tx, None);
        Self { name: name.into(), frame: frame.bytes(), round, budget, action, verdict }
    }

    /// Measures, and makes sure that the program did what the row says, each time.
    fn run(&self, plane: &mut Plane, watch: &mut Stopwatch) -> Result<Lap> {
        if self.round.is_none() {
            let (action, _) = plane.run(&self.frame)?;
            ensure!(action == self.action, "expected {:?}, got {action:?}", self.action);
        }
        let before = plane.counters()?;
        let lap = match self.round {
            None => watch.direct(plane, &self.frame)?,
            Some(round) => watch.shimmed(plane, &self.frame, round)?,
        };
        let mut moved = Plane::moved(&before, &plane.counters()?);
        moved.retain(|name, _| Verdict::ALL.iter().any(|verdict| verdict.name() == name));
        let expected = self.verdict.map(|verdict| (verdict.name().into(), lap.packets as i64));
        let expected = expected.into_iter().collect();
        ensure!(moved == expected, "counted {moved:?}, expected {expected:?}");
        Ok(lap)
    }
}

/// What a client's segment of an established connection looks like: a full sequence of data is not
/// needed, the program reads headers only.
fn data(src: &str, dst: &str) -> Frame {
    Frame::tcp(src, dst, ACK).payload(&[0; 10])
}

fn service(plane: &mut Plane, index: u32, mode: u8, select: u8, reals: &[u32]) -> Result<()> {
    let slots: Vec<_> = reals.iter().map(|&real| (real, 1)).collect();
    let mut service = plane.service(index, mode, select, &slots)?;
    service.source = words(SNAT_V4.parse()?);
    service.idle = 7440;
    plane.set_service(index, service)
}

/// The address and port of flow `n`, as the shim writes them over `client`.
fn client(key: &mut FlowKey<AddrV4>, n: u32) {
    key.sport = Be16::from_raw(n as u16);
    let mut octets: [u8; 4] = std::net::Ipv4Addr::from(key.src).octets();
    octets[2..].copy_from_slice(&((n >> 16) as u16).to_le_bytes());
    key.src = AddrV4::from(std::net::Ipv4Addr::from(octets));
}

fn v4_key(src: &str, dst: &str) -> Result<FlowKey<AddrV4>> {
    let (src, dst): (std::net::SocketAddrV4, std::net::SocketAddrV4) = (src.parse()?, dst.parse()?);
    Ok(FlowKey {
        src: AddrV4::from(*src.ip()),
        dst: AddrV4::from(*dst.ip()),
        sport: Be16::new(src.port()),
        dport: Be16::new(dst.port()),
    })
}

/// The flow of an established connection to real server 1.
fn flow<A: Addr>(key: &FlowKey<A>, to: Option<FlowKey<A>>, flags: u8) -> Flow<A>
where
    FlowKey<A>: Default,
{
    let mut flow = Flow {
        real: 1,
        last_seen: 0,
        created: 0,
        state: state::ESTABLISHED,
        flags,
        hop: Hop { interface: 1, tags: Tags::new(0, 0), mac: CLIENT_MAC.into() },
        to: to.unwrap_or_default(),
        ip_delta: 0,
        l4_delta: 0,
    };
    if let Some(to) = to {
        let deltas = Deltas::between(key, &to);
        (flow.ip_delta, flow.l4_delta) = (deltas.ip, deltas.l4);
        flow.flags |= flow_flags::TRANSLATE;
    }
    flow
}

/// Where flow `n`'s packets go; in DR nowhere else.
fn target(mode: u8, key: &FlowKey<AddrV4>, n: u32) -> Result<Option<FlowKey<AddrV4>>> {
    let real = v4_key("0.0.0.0:0", "10.0.1.1:104")?;
    Ok(match mode {
        mode::DR => None,
        mode::NAT => Some(FlowKey { dst: real.dst, dport: real.dport, ..*key }),
        _ => {
            let [a, b, c, _] = n.to_le_bytes();
            let src = AddrV4::from(std::net::Ipv4Addr::new(10, 200, c, b));
            Some(FlowKey { src, sport: Be16::from_raw(u16::from_le_bytes([a, 250])), ..real })
        }
    })
}

fn established(mode: u8, flows: u32) -> Result<Stage> {
    let both = if mode == mode::DR { 1 } else { 2 };
    let room = MILLION * if flows == MILLION { both } else { 1 };
    let mut plane = Plane::load_with(room, HALF_OPEN, false)?;
    plane.real(1, 1, mode, rip(1, false))?;
    service(&mut plane, 1, mode, Select::LEAST, &[1])?;
    plane.vip("10.0.0.100".parse()?, &[(6, 104, 104, 1)])?;
    let base = v4_key(CLIENT_V4, VIP_V4)?;
    let mut reply = None;
    let mut table = plane.hash::<FlowKey<AddrV4>, Flow<AddrV4>>("TCP_V4")?;
    for n in 0..flows {
        let mut key = base;
        client(&mut key, n);
        let to = target(mode, &key, n)?;
        table.insert(key, flow(&key, to, flow_flags::COUNTED), 0)?;
        if let Some(to) = to {
            let (from, to) = (to.reversed(), key.reversed());
            table.insert(from, flow(&from, Some(to), flow_flags::REPLY), 0)?;
            reply.get_or_insert(from);
        }
    }
    Ok(Stage { plane, group: group(mode), shots: established_shots(mode, flows, reply) })
}

fn group(mode: u8) -> &'static str {
    match mode {
        mode::DR => "established, DR",
        mode::NAT => "established, NAT",
        _ => "established, SNAT",
    }
}

fn established_shots(mode: u8, flows: u32, reply: Option<FlowKey<AddrV4>>) -> Vec<Shot> {
    let frame = data(CLIENT_V4, VIP_V4);
    let table = if mode != mode::DR && flows == MILLION { 2 * MILLION } else { MILLION };
    let name = |n: u32| format!("{} flows, table for {}", digits(n), digits(table));
    if flows == MILLION {
        return orders(&frame, MILLION, &name(MILLION), None).into();
    }
    let dr = mode == mode::DR;
    let round = if dr { None } else { Some(Round::ONE) };
    let mut shots = vec![Shot::new("one flow", &frame, round, Some(if dr { 6. } else { 9. }))];
    shots.push(Shot::new(name(1024), &frame, Some(Round::scattered(1024)), None));
    shots.extend(orders(&frame, MANY, &name(MANY), dr.then_some(20.)));
    if let Some(key) = reply {
        let (src, dst) = (std::net::Ipv4Addr::from(key.src), std::net::Ipv4Addr::from(key.dst));
        let (src, dst) =
            (format!("{src}:{}", key.sport.get()), format!("{dst}:{}", key.dport.get()));
        let name = "one flow, reply";
        shots.push(Shot::new(name, &data(&src, &dst), Some(Round::ONE), Some(9.)));
    }
    shots
}

/// Many flows in both orders; the budget is for the first, the order that it was set with.
fn orders(frame: &Frame, flows: u32, name: &str, budget: Option<f64>) -> [Shot; 2] {
    let in_turn = Shot::new(name, frame, Some(Round::in_turn(flows)), budget);
    let name = format!("{name}, scattered");
    [in_turn, Shot::new(name, frame, Some(Round::scattered(flows)), None)]
}

/// 65,536 as people write it.
pub(super) fn digits(n: u32) -> String {
    let text = n.to_string();
    let mut out = String::new();
    for (i, digit) in text.chars().enumerate() {
        if i > 0 && (text.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn established_v6() -> Result<Stage> {
    let mut plane = Plane::load_with(MILLION, HALF_OPEN, false)?;
    let mut shots = Vec::new();
    for (i, (mode, name)) in MODES.into_iter().enumerate() {
        let n = i as u32 + 1;
        plane.real(n, n, mode, rip(n, true))?;
        service(&mut plane, n, mode, Select::LEAST, &[n])?;
        let vip: std::net::Ipv6Addr = format!("fd00::10{i}").parse()?;
        plane.vip(vip.into(), &[(6, 104, 104, n)])?;
        if mode == mode::SNAT {
            let mut service = plane.service(n, mode, Select::LEAST, &[(n, 1)])?;
            service.source = words("fd00::2".parse::<IpAddr>()?);
            plane.set_service(n, service)?;
        }
        let vip = format!("[{vip}]:104");
        for flags in [SYN, ACK] {
            let (action, _) = plane.run(&Frame::tcp(CLIENT_V6, &vip, flags).bytes())?;
            ensure!(action == Action::Tx, "a connection did not open: {action:?}");
        }
        let budget = if mode == mode::DR { 7. } else { 9. };
        let shim = (mode != mode::DR).then_some(Round::ONE);
        shots.push(Shot::new(
            format!("{name}, one flow"),
            &data(CLIENT_V6, &vip),
            shim,
            Some(budget),
        ));
    }
    fill_v6(&mut plane)?;
    let name = format!("dr, {} flows, table for {}", digits(MANY), digits(MILLION));
    shots.extend(orders(&data(CLIENT_V6, VIP_V6), MANY, &name, None));
    Ok(Stage { plane, group: "established, IPv6", shots })
}

fn fill_v6(plane: &mut Plane) -> Result<()> {
    let src: std::net::SocketAddrV6 = CLIENT_V6.parse()?;
    let dst: std::net::SocketAddrV6 = VIP_V6.parse()?;
    let (src, dst) = (AddrV6::from(*src.ip()), AddrV6::from(*dst.ip()));
    let mut table = plane.hash::<FlowKey<AddrV6>, Flow<AddrV6>>("TCP_V6")?;
    for n in 0..MANY {
        let key = FlowKey { src, dst, sport: Be16::from_raw(n as u16), dport: Be16::new(104) };
        table.insert(key, flow(&key, None, flow_flags::COUNTED), 0)?;
    }
    Ok(())
}

fn udp() -> Result<Stage> {
    let mut plane = Plane::load_with(MILLION, MILLION / 4, false)?;
    plane.real(1, 1, mode::DR, rip(1, false))?;
    service(&mut plane, 1, mode::DR, Select::LEAST, &[1])?;
    plane.vip("10.0.0.100".parse()?, &[(17, 104, 104, 1)])?;
    let frame = Frame::udp(CLIENT_V4, VIP_V4).payload(&[0; 22]);
    let shots = [
        Shot::new("one flow", &frame, None, Some(7.)),
        Shot::new("1,024 flows, table for 262,144", &frame, Some(Round::scattered(1024)), None),
    ];
    let mut shots = Vec::from(shots);
    shots.extend(orders(&frame, MANY, "65,536 flows, table for 262,144", None));
    Ok(Stage { plane, group: "UDP, DR", shots })
}

/// A VIP for each scheduler and number of servers.
fn opening() -> Result<Stage> {
    const SELECT: [(u8, &str); 4] = [
        (Select::LEAST, "wlc"),
        (Select::CURSOR, "wrr"),
        (Select::HASH, "maglev/sh"),
        (Select::FIRST, "failover"),
    ];
    let mut plane = Plane::load_with(MILLION, HALF_OPEN, false)?;
    let mut shots = Vec::new();
    let (mut number, mut real) = (0, 0);
    let mut add = |plane: &mut Plane, mode, select, servers: u32, name, budget| -> Result<()> {
        number += 1;
        let reals: Vec<u32> = (real + 1..=real + servers).collect();
        real += servers;
        for &index in &reals {
            let address: IpAddr = std::net::Ipv4Addr::from(0x0a01_0000 + index).into();
            plane.real(index, number, mode, address)?;
        }
        service(plane, number, mode, select, &reals)?;
        let vip = format!("10.0.2.{number}");
        plane.vip(vip.parse()?, &[(6, 104, 104, number)])?;
        let syn = Frame::tcp(CLIENT_V4, &format!("{vip}:104"), SYN);
        shots.push(Shot::new(name, &syn, Some(Round::scattered(NEW)), budget));
        Ok(())
    };
    for (select, name) in SELECT {
        for servers in [2, 16, 256] {
            let budget = (select == Select::LEAST && servers == 16).then_some(60.);
            let name = format!("DR, {name}, {servers} servers");
            add(&mut plane, mode::DR, select, servers, name, budget)?;
        }
    }
    for (mode, name) in &MODES[1..] {
        let name = format!("{}, wlc, 16 servers", name.to_uppercase());
        add(&mut plane, *mode, Select::LEAST, 16, name, None)?;
    }
    Ok(Stage { plane, group: "SYN of a new connection", shots })
}

fn aside() -> Result<Stage> {
    let mut plane = Plane::load_with(MILLION, HALF_OPEN, false)?;
    plane.real(1, 1, mode::DR, rip(1, false))?;
    service(&mut plane, 1, mode::DR, Select::LEAST, &[1])?;
    plane.vip("10.0.0.100".parse()?, &[(6, 104, 104, 1)])?;
    let me = Interface { ifindex: INGRESS, mac: LB_MAC.into(), mtu: 1500, ..Default::default() };
    plane.array("INTERFACES")?.set(1, me, 0)?;
    let open = "192.0.2.7:40000";
    for flags in [SYN, ACK] {
        plane.run(&Frame::tcp(open, VIP_V4, flags).bytes())?;
    }
    let pieces = fragment_v4(&Frame::tcp(open, VIP_V4, ACK).payload(&[0; 100]).bytes(), 64);
    plane.run(&pieces[0])?;
    let other = |name: &str, frame: Vec<u8>, budget| Shot {
        name: name.into(),
        frame,
        round: None,
        budget,
        action: Action::Pass,
        verdict: Some(Verdict::NotOurs),
    };
    let mut arp = Frame::tcp(open, VIP_V4, ACK).bytes();
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut unknown = Frame::tcp("192.0.2.8:40000", VIP_V4, ACK);
    unknown.padding = 6;
    let rst = Frame::tcp("192.0.2.8:40000", VIP_V4, RST);
    let mut shots = vec![
        other("not ours, TCP", data(open, "10.9.9.9:104").bytes(), Some(4.)),
        other("not ours, UDP", Frame::udp(open, "10.9.9.9:104").bytes(), Some(4.)),
        other("not ours, TCP over IPv6", data("[fd00::7]:1", "[fd00::9]:104").bytes(), None),
        other("not ours, ARP", arp, Some(4.)),
        Shot { frame: pieces[0].clone(), ..Shot::new("fragment, first, DR", &rst, None, None) },
        Shot { frame: pieces[1].clone(), ..Shot::new("fragment, later, DR", &rst, None, None) },
    ];
    shots.push(Shot {
        verdict: Some(Verdict::NoFlowReset),
        ..Shot::new("no such flow: RST made", &unknown, Some(Round::ONE), None)
    });
    shots.push(Shot {
        action: Action::Drop,
        verdict: Some(Verdict::NoFlow),
        ..Shot::new("no such flow: RST dropped", &rst, None, None)
    });
    Ok(Stage { plane, group: "not simply forwarded", shots })
}
