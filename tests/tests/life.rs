//! Fixtures of a connection's life, for each forwarding method and both families: idle to its last
//! second, ended and begun anew, its server drained or lost.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;

use lb_common::abi::*;
use tests::plane::expect::{expect, rst_for};
use tests::plane::frame::{ACK, FIN, Frame, RST, SYN};
use tests::plane::{Action, CLIENT_MAC, LB_MAC, Plane, real_mac, rip, words};

/// Of [`Plane::service`], in ticks.
const IDLE: u32 = 3600;
const DRAINED: u32 = real_flags::NEIGHBOUR;
const LOST: u32 = real_flags::NEIGHBOUR | real_flags::RESET;

/// One method and family, with a connection of its client.
struct Case {
    mode: u8,
    v6: bool,
    client: &'static str,
    vip: &'static str,
    p: Plane,
}

/// A connection as the real server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// Which real server.
    index: u32,
    /// The client's address, or medlb's and a port of the range.
    source: String,
}

/// Runs a test once for each method and family.
fn each(modes: &[u8], servers: u32, test: impl Fn(Case)) {
    for v6 in [false, true] {
        for &mode in modes {
            test(Case::new(mode, v6, servers));
        }
    }
}

const ALL: [u8; 3] = [mode::DR, mode::NAT, mode::SNAT];
/// Those whose replies pass medlb.
const TRANSLATING: [u8; 2] = [mode::NAT, mode::SNAT];

impl Case {
    fn new(mode: u8, v6: bool, servers: u32) -> Self {
        let mut p = Plane::load(1024).unwrap();
        let slots: Vec<_> = (1..=servers).map(|index| (index, 1)).collect();
        for &(index, _) in &slots {
            p.real(index, 1, mode, rip(index, v6)).unwrap();
        }
        let mut service = p.service(1, mode, Select::LEAST, &slots).unwrap();
        service.source = words(if v6 { "fd00::2" } else { "10.0.0.2" }.parse().unwrap());
        p.set_service(1, service).unwrap();
        let vip = if v6 { "[fd00::100]:104" } else { "10.0.0.100:104" };
        let client = if v6 { "[2001:db8::7]:40000" } else { "192.0.2.7:40000" };
        p.vip(vip.parse::<SocketAddr>().unwrap().ip(), &[(6, 104, 104, 1)]).unwrap();
        Self { mode, v6, client, vip, p }
    }

    fn name(&self) -> String {
        format!("mode {}, {}", self.mode, if self.v6 { "IPv6" } else { "IPv4" })
    }

    /// Length of a segment's headers.
    fn headers(&self) -> i64 {
        if self.v6 { 60 } else { 40 }
    }

    /// A segment of the client's.
    fn says(&self, flags: u8, text: &str) -> Frame {
        Frame::tcp(self.client, self.vip, flags).payload(text.as_bytes())
    }

    /// Sends a segment of the client's that some real server must get.
    fn sent(&mut self, flags: u8) -> Seen {
        let (action, out) = self.p.run(&self.says(flags, "").bytes()).unwrap();
        assert_eq!((action, &out[..5]), (Action::Tx, &real_mac(0)[..5]), "{}", self.name());
        let (at, port) = if self.v6 { (22, 54) } else { (26, 34) };
        let port = u16::from_be_bytes([out[port], out[port + 1]]);
        let source = if self.v6 {
            let octets = <[u8; 16]>::try_from(&out[at..at + 16]).unwrap();
            SocketAddr::new(octets.into(), port)
        } else {
            let octets = <[u8; 4]>::try_from(&out[at..at + 4]).unwrap();
            SocketAddr::new(octets.into(), port)
        };
        Seen { index: out[5].into(), source: source.to_string() }
    }

    fn open(&mut self) -> Seen {
        let seen = self.sent(SYN);
        assert_eq!(self.sent(ACK), seen, "{}", self.name());
        seen
    }

    /// The real server as it appears in its segments.
    fn real(&self, seen: &Seen) -> String {
        if self.mode == mode::DR {
            return self.vip.into();
        }
        SocketAddr::new(rip(seen.index, self.v6), 104).to_string()
    }

    /// A segment of the real server's.
    fn answers(&self, seen: &Seen, flags: u8, text: &str) -> Frame {
        let reply = Frame::tcp(&self.real(seen), &seen.source, flags);
        reply.macs(LB_MAC, real_mac(seen.index)).payload(text.as_bytes())
    }

    /// A segment of the client's arrives at the real server.
    #[track_caller]
    fn reaches_the_server(&mut self, seen: &Seen, flags: u8, text: &str, more: &[(&str, i64)]) {
        let frame = self.says(flags, text);
        let mut out = frame.clone().macs(real_mac(seen.index), LB_MAC);
        if self.mode != mode::DR {
            out = out.translated(&seen.source, &self.real(seen));
        }
        let (packets, bytes) =
            (format!("real{}.packets_in", seen.index), format!("real{}.bytes_in", seen.index));
        let length = self.headers() + text.len() as i64;
        let moved = [&[(&*packets, 1), (&*bytes, length)], more].concat();
        expect(&mut self.p, &frame, Action::Tx, &out, &moved);
    }

    /// A segment of the real server's arrives at the client.
    #[track_caller]
    fn reaches_the_client(&mut self, seen: &Seen, flags: u8, text: &str, more: &[(&str, i64)]) {
        let frame = self.answers(seen, flags, text);
        let out = frame.clone().translated(self.vip, self.client).macs(CLIENT_MAC, LB_MAC);
        let (packets, bytes) =
            (format!("real{}.packets_out", seen.index), format!("real{}.bytes_out", seen.index));
        let length = self.headers() + text.len() as i64;
        let moved = [&[(&*packets, 1), (&*bytes, length)], more].concat();
        expect(&mut self.p, &frame, Action::Tx, &out, &moved);
    }

    /// Whoever sent this segment is told by a RST that the connection is over.
    #[track_caller]
    fn is_reset(&mut self, frame: &Frame, index: u32, counted: bool) {
        let mut out = rst_for(frame, frame.ack, 0, RST);
        if self.v6 {
            out.padding = 0;
        }
        let active = format!("real{index}.active");
        let mut moved = vec![("server_down_reset", 1), ("service1.server_down_reset", 1)];
        if counted {
            moved.push((&active, -1));
        }
        expect(&mut self.p, frame, Action::Tx, &out, &moved);
    }

    fn flags(&mut self, index: u32, flags: u32) {
        let mut real = self.p.real_record(index).unwrap();
        real.flags = flags;
        self.p.set_real(index, real).unwrap();
    }

    /// How many entries the tables of established flows have.
    fn established(&mut self) -> usize {
        if self.v6 {
            self.p.hash::<FlowKey<AddrV6>, Flow<AddrV6>>("TCP_V6").unwrap().keys().count()
        } else {
            self.p.hash::<FlowKey<AddrV4>, Flow<AddrV4>>("TCP_V4").unwrap().keys().count()
        }
    }

    /// Another port of the client's from now on.
    fn next_port(&mut self) {
        self.client = if self.v6 { "[2001:db8::7]:40001" } else { "192.0.2.7:40001" };
    }
}

#[test]
fn a_connection_idle_for_its_timeout_less_a_second_goes_on_in_both_directions() {
    each(&ALL, 1, |mut case| {
        let seen = case.open();
        for _ in 0..3 {
            case.p.advance(IDLE - 1).unwrap();
            case.reaches_the_server(&seen, ACK, "P-DATA-TF", &[]);
            if case.mode != mode::DR {
                // Only the server has spoken for nearly twice the timeout.
                case.p.advance(IDLE - 1).unwrap();
                case.reaches_the_client(&seen, ACK, "C-STORE-RSP", &[]);
                case.p.advance(IDLE - 1).unwrap();
                case.reaches_the_client(&seen, ACK, "another", &[]);
            }
        }
        // A SYN in the last second is no new connection; behind it, it is.
        let tuple = case.sent(ACK);
        case.p.advance(IDLE).unwrap();
        case.reaches_the_server(&tuple, SYN, "", &[]);
        case.p.advance(IDLE + 1).unwrap();
        let before = case.p.counters().unwrap();
        case.sent(SYN);
        let moved = Plane::moved(&before, &case.p.counters().unwrap());
        assert_eq!(moved.get("real1.connections"), Some(&1), "{}", case.name());
        assert_eq!(moved.get("real1.active"), Some(&-1), "{}", case.name());
        assert_eq!(case.established(), 0, "{}: both directions of the old one went", case.name());
    });
}

/// Ends the connection in one way; a test that begins it anew follows.
fn begins_anew_after(modes: &[u8], end: impl Fn(&mut Case, &Seen)) {
    each(modes, 1, |mut case| {
        let old = case.open();
        end(&mut case, &old);
        let name = case.name();
        assert!(!case.p.counters().unwrap().contains_key("real1.active"), "{name}");
        // At once: from the old connection's port, without waiting for any timer.
        let before = case.p.counters().unwrap();
        let new = case.sent(SYN);
        let moved = Plane::moved(&before, &case.p.counters().unwrap());
        assert_eq!(moved.get("real1.connections"), Some(&1), "{name}");
        assert_eq!(moved.get("real1.pending"), Some(&1), "{name}");
        assert_eq!(case.established(), 0, "{name}: both directions of the old one went");
        if case.mode == mode::SNAT {
            assert_ne!(new.source, old.source, "{name}: the server still waits on that port");
        } else {
            assert_eq!(new, old, "{name}");
        }
        if case.mode != mode::DR {
            case.reaches_the_client(&new, SYN | ACK, "", &[]);
        }
        let active = [("real1.pending", -1), ("real1.active", 1)];
        case.reaches_the_server(&new, ACK, "A-ASSOCIATE-RQ", &active);
        if case.mode != mode::DR {
            case.reaches_the_client(&new, ACK, "A-ASSOCIATE-AC", &[]);
        }
    });
}

#[test]
fn a_reused_port_begins_anew_after_the_clients_fin_or_rst() {
    for flags in [FIN | ACK, RST | ACK, RST] {
        begins_anew_after(&ALL, |case, seen| {
            case.reaches_the_server(seen, flags, "", &[("real1.active", -1)]);
        });
    }
}

#[test]
fn a_reused_port_begins_anew_after_the_servers_fin_or_rst() {
    for flags in [FIN | ACK, RST | ACK, RST] {
        begins_anew_after(&TRANSLATING, |case, seen| {
            case.reaches_the_client(seen, flags, "", &[("real1.active", -1)]);
        });
    }
}

#[test]
fn what_follows_a_fin_still_reaches_both_ends() {
    begins_anew_after(&TRANSLATING, |case, seen| {
        case.reaches_the_server(seen, FIN | ACK, "A-RELEASE-RQ", &[("real1.active", -1)]);
        case.reaches_the_client(seen, ACK, "A-RELEASE-RP", &[]);
        case.reaches_the_client(seen, FIN | ACK, "", &[]);
        case.reaches_the_server(seen, ACK, "", &[]);
    });
}

#[test]
fn an_association_idle_for_minutes_learns_of_its_lost_server_whoever_speaks_first() {
    for server_first in [false, true] {
        each(&ALL, 2, |mut case| {
            if server_first && case.mode == mode::DR {
                return; // a DR server's segments do not pass medlb
            }
            let seen = case.open();
            case.p.advance(600).unwrap();
            case.flags(seen.index, LOST);
            case.p.advance(600).unwrap();
            let client = case.says(ACK, "P-DATA-TF");
            let server = case.answers(&seen, ACK, "C-STORE-RSP of a server that was only slow");
            let both = if server_first { [&server, &client] } else { [&client, &server] };
            case.is_reset(both[0], seen.index, true);
            if case.mode != mode::DR {
                case.is_reset(both[1], seen.index, false);
            }
            // Told again, should the RST be lost; and back at once by the other server.
            case.is_reset(&client, seen.index, false);
            assert_eq!(case.open().index, 3 - seen.index, "{}", case.name());
        });
    }
}

#[test]
fn a_lost_servers_connections_are_kept_where_that_is_wanted() {
    each(&ALL, 2, |mut case| {
        let seen = case.open();
        // `on_down: {established: keep}` takes no new connections and resets none.
        case.flags(seen.index, DRAINED);
        case.p.advance(600).unwrap();
        case.reaches_the_server(&seen, ACK, "P-DATA-TF", &[]);
        if case.mode != mode::DR {
            case.reaches_the_client(&seen, ACK, "C-STORE-RSP", &[]);
        }
        case.next_port();
        assert_eq!(case.open().index, 3 - seen.index, "{}", case.name());
    });
}

#[test]
fn a_drained_server_gets_nothing_by_an_old_tuple_whatever_its_state() {
    type Reach = fn(&mut Case) -> Seen;
    let states: [(&str, Reach); 4] = [
        ("half-open", |case| case.sent(SYN)),
        ("established", Case::open),
        ("closing", |case| {
            let seen = case.open();
            case.sent(FIN | ACK);
            seen
        }),
        ("reset", |case| {
            let seen = case.open();
            case.sent(RST);
            seen
        }),
    ];
    for (state, reach) in states {
        each(&ALL, 2, |mut case| {
            let seen = reach(&mut case);
            case.flags(seen.index, DRAINED);
            let other = 3 - seen.index;
            let name = format!("{}, {state}", case.name());
            assert_eq!(case.open().index, other, "{name}");
            let c = case.p.counters().unwrap();
            for count in ["active", "pending"] {
                let left = c.get(&format!("real{}.{count}", seen.index));
                assert_eq!(left, None, "{name}: {count} of the drained one");
            }
            assert_eq!(c.get(&format!("real{other}.active")), Some(&1), "{name}");
            let entries = if case.mode == mode::DR { 1 } else { 2 };
            assert_eq!(case.established(), entries, "{name}: only the new one");
        });
    }
}

#[test]
fn a_drained_servers_persistent_client_goes_elsewhere_unless_it_may_stay() {
    for stays in [false, true] {
        each(&ALL, 2, |mut case| {
            let mut service = case.p.service(1, case.mode, Select::LEAST, &[(1, 1), (2, 1)]);
            let service = service.as_mut().unwrap();
            service.flags |= service_flags::PERSISTENT;
            service.persist = 3600;
            service.persist_mask = [Be32::new(u32::MAX); 4];
            service.source = words(if case.v6 { "fd00::2" } else { "10.0.0.2" }.parse().unwrap());
            case.p.set_service(1, *service).unwrap();
            let first = case.open();
            let stay = if stays { real_flags::ACCEPT_PERSISTENT } else { 0 };
            case.flags(first.index, DRAINED | stay);
            case.next_port();
            let second = case.open();
            let due = if stays { first.index } else { 3 - first.index };
            assert_eq!(second.index, due, "{}", case.name());
            // Back online: where the client went is where it stays.
            case.flags(first.index, DRAINED | real_flags::ACCEPT);
            case.sent(FIN | ACK);
            assert_eq!(case.open().index, due, "{}", case.name());
        });
    }
}

#[test]
fn a_syn_that_is_never_answered_begins_anew_once_it_has_expired() {
    each(&ALL, 1, |mut case| {
        let first = case.sent(SYN);
        case.p.advance(59).unwrap();
        assert_eq!(case.sent(SYN), first, "{}: a retransmission", case.name());
        let begun = case.p.counters().unwrap()["real1.connections"];
        assert_eq!(begun, 1, "{}", case.name());
    });
}

#[test]
fn nat_a_port_that_one_service_has_finished_with_serves_another_on_the_same_server() {
    let ends: [&[u8]; 3] = [&[ACK, FIN | ACK], &[ACK, RST], &[RST]];
    for flags in ends {
        each(&[mode::NAT], 1, |mut case| {
            let vip = if case.v6 { "[fd00::101]:104" } else { "10.0.0.101:104" };
            case.p.real(2, 2, mode::NAT, rip(1, case.v6)).unwrap();
            let mut real = case.p.real_record(2).unwrap();
            real.dst_mac = real_mac(1).into();
            case.p.set_real(2, real).unwrap();
            case.p.service(2, mode::NAT, Select::LEAST, &[(2, 1)]).unwrap();
            case.p.vip(vip.parse::<SocketAddr>().unwrap().ip(), &[(6, 104, 104, 2)]).unwrap();
            let first = case.vip;
            let seen = case.sent(SYN);
            // While the first one goes on, the second is refused by name.
            let refused = |case: &mut Case| {
                case.vip = vip;
                let before = case.p.counters().unwrap();
                case.p.run(&case.says(SYN, "").bytes()).unwrap();
                let moved = Plane::moved(&before, &case.p.counters().unwrap());
                assert_eq!(moved.get("service2.flow_conflict"), Some(&1), "{}", case.name());
                case.vip = first;
            };
            refused(&mut case);
            for &flags in flags {
                case.sent(flags);
                if flags == ACK {
                    refused(&mut case);
                }
            }
            case.vip = vip;
            assert_eq!(case.open(), seen, "{}", case.name());
            let reply = case.answers(&seen, ACK, "from the other VIP");
            let out = reply.clone().translated(vip, case.client).macs(CLIENT_MAC, LB_MAC);
            let (action, bytes) = case.p.run(&reply.bytes()).unwrap();
            assert_eq!((action, bytes), (Action::Tx, out.bytes()), "{}", case.name());
        });
    }
}
