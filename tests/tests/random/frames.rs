//! Draws frames: valid ones of all kinds, replies and ICMP errors to what came out, and mutations
//! of all of them.

use std::net::{IpAddr, SocketAddr};

use fastrand::Rng;
use tests::plane::frame::Frame;
use tests::plane::pieces::{IcmpError, extend_v6, fragment_v4, fragment_v6, tagged};
use tests::plane::{CLIENT_MAC, LB_MAC};

use crate::oracle;

/// The VIP of either family.
pub fn vip(v6: bool) -> IpAddr {
    if v6 { "fd00::100" } else { "10.0.0.100" }.parse().expect("an address")
}

/// The SNAT source of either family, medlb's own address.
pub fn own(v6: bool) -> IpAddr {
    if v6 { "fd00::2" } else { "10.0.0.2" }.parse().expect("an address")
}

fn client(rng: &mut Rng, v6: bool) -> IpAddr {
    let n = rng.u8(1..=6);
    if v6 { format!("2001:db8::{n}") } else { format!("192.0.2.{n}") }.parse().expect("an address")
}

/// Ports with services, and some without.
const PORTS: [u16; 12] = [104, 104, 443, 443, 80, 80, 514, 9, 444, 90, 8080, 8081];

/// How many frames that came out are remembered.
const MEMORY: usize = 128;

/// Draws frames.
pub struct Source {
    /// What everything is drawn from.
    pub rng: Rng,
    seen: Vec<Vec<u8>>,
}

impl Source {
    /// A source that draws the same frames for the same seed and the same answers.
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), seen: Vec::new() }
    }

    /// Remembers a frame that came out, for replies to it and errors about it.
    pub fn saw(&mut self, frame: &[u8]) {
        if self.seen.len() < MEMORY {
            self.seen.push(frame.to_vec());
        } else {
            let place = self.rng.usize(..MEMORY);
            self.seen[place].clear();
            self.seen[place].extend_from_slice(frame);
        }
    }

    /// The next frame.
    pub fn draw(&mut self) -> Vec<u8> {
        let mut frame = match self.rng.u8(..10) {
            0..=1 => self.reply(),
            2 => self.error(),
            _ => None,
        }
        .unwrap_or_else(|| self.fresh());
        if self.rng.u8(..8) == 0 {
            frame = self.cut(frame);
        }
        if self.rng.u8(..8) == 0 {
            frame = self.tag(&frame);
        }
        if self.rng.bool() {
            for _ in 0..self.rng.u8(1..4) {
                self.mutate(&mut frame);
            }
            if self.rng.u8(..4) != 0
                && let Some(found) = oracle::parse(&frame)
            {
                found.mend(&mut frame);
            }
        }
        frame
    }

    /// A client's segment or datagram.
    fn fresh(&mut self) -> Vec<u8> {
        let rng = &mut self.rng;
        let v6 = rng.u8(..3) == 0;
        let src = SocketAddr::new(client(rng, v6), rng.u16(40_000..40_040));
        let port = PORTS[rng.usize(..PORTS.len())];
        let mut dst = SocketAddr::new(vip(v6), port);
        if rng.u8(..20) == 0 {
            dst.set_port(rng.u16(..));
        }
        if rng.u8(..12) == 0 {
            dst.set_ip(if rng.bool() { client(rng, v6) } else { own(v6) });
        }
        let flags = [2, 2, 16, 16, 16, 24, 17, 4, 20, 18][rng.usize(..10)];
        let mut frame = Frame { src, dst, ..Frame::tcp("1.1.1.1:1", "1.1.1.1:1", flags) };
        if rng.u8(..3) == 0 || matches!(port, 514 | 8081) {
            frame.protocol = 17;
            frame.no_checksum = rng.u8(..8) == 0;
        }
        if rng.u8(..20) == 0 {
            frame.src_mac[5] = rng.u8(..); // another router
        }
        if rng.u8(..20) == 0 {
            frame.src.set_ip(vip(v6)); // as the answer to a check has it
            frame.dst = SocketAddr::new(own(v6), 50_000);
            frame.src.set_port(104);
        }
        let length = [0, 0, 1, 6, 64, 300, 1400][rng.usize(..7)];
        frame.payload = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
        frame.padding = if rng.u8(..6) == 0 { rng.usize(1..20) } else { 0 };
        frame.ttl = if rng.u8(..30) == 0 { rng.u8(..3) } else { 64 };
        frame.id = rng.u16(..4);
        frame.seq = rng.u32(..);
        frame.ack = rng.u32(..);
        if rng.u8(..20) == 0 {
            frame.options = vec![1; 4 * rng.usize(1..=10)];
        }
        let bytes = frame.bytes();
        if v6 && rng.u8(..6) == 0 {
            let kinds = [0, 43, 60];
            let headers: Vec<_> = (0..rng.usize(1..8))
                .map(|_| (kinds[rng.usize(..3)], 8 * rng.usize(1..6)))
                .collect();
            return extend_v6(&bytes, &headers);
        }
        bytes
    }

    /// A frame that came out, untagged.
    fn remembered(&mut self) -> Option<&Vec<u8>> {
        let place = self.rng.usize(..MEMORY);
        self.seen.get(place).filter(|frame| frame[12] != 0x81 && frame[12] != 0x88)
    }

    /// The receiver of such a frame answers.
    fn reply(&mut self) -> Option<Vec<u8>> {
        let mut frame = self.remembered()?.clone();
        let (at, address, l4) = match frame[12] {
            0x08 => (26, 4, 14 + usize::from(frame[14] & 15) * 4),
            _ => (22, 16, 54),
        };
        if frame.len() < l4 + 8 {
            return None;
        }
        let (a, b) = frame[..12].split_at_mut(6);
        a.swap_with_slice(b);
        let (a, b) = frame[at..at + 2 * address].split_at_mut(address);
        a.swap_with_slice(b);
        let (a, b) = frame[l4..l4 + 4].split_at_mut(2);
        a.swap_with_slice(b);
        if frame.len() > l4 + 20 && oracle::parse(&frame)?.protocol == 6 && self.rng.bool() {
            frame[l4 + 13] = [18, 16, 24, 17, 4][self.rng.usize(..5)];
            oracle::parse(&frame)?.mend(&mut frame);
        }
        Some(frame)
    }

    /// A router, or the receiver, has something to say about such a frame.
    fn error(&mut self) -> Option<Vec<u8>> {
        let frame = self.remembered()?.clone();
        let v6 = frame[12] == 0x86;
        let (at, l4) = if v6 { (22, 54) } else { (26, 34) };
        let whole = self.rng.bool();
        let quoted = &frame[14..if whole { frame.len() } else { frame.len().min(l4 + 8) }];
        let src = match self.rng.u8(..3) {
            0 => client(&mut self.rng, v6),
            1 => vip(v6),
            _ => address(frame.get(at + if v6 { 16 } else { 4 }..)?, v6)?,
        };
        let kind = if v6 { self.rng.u8(..6) } else { self.rng.u8(..14) };
        let error = IcmpError {
            dst_mac: LB_MAC,
            src_mac: CLIENT_MAC,
            src,
            dst: address(frame.get(at..)?, v6)?,
            kind: (kind, self.rng.u8(..6)),
            rest: self.rng.u32(..),
            quoted: quoted.to_vec(),
            ttl: self.rng.u8(..),
            df: self.rng.bool(),
        };
        Some(error.bytes())
    }

    /// A fragment of the frame.
    fn cut(&mut self, frame: Vec<u8>) -> Vec<u8> {
        let size = 8 * self.rng.usize(1..20);
        let pieces = match word(&frame, 12) {
            0x0800 if frame.len() > 34 && frame[14] & 15 == 5 => fragment_v4(&frame, size),
            0x86dd if frame.len() > 54 => fragment_v6(&frame, size, self.rng.u32(..4)),
            _ => return frame,
        };
        let at = self.rng.usize(..pieces.len().min(3));
        pieces.into_iter().nth(at).unwrap_or(frame)
    }

    fn tag(&mut self, frame: &[u8]) -> Vec<u8> {
        let kinds = [0x8100, 0x88a8];
        let tags: Vec<_> = (0..self.rng.usize(1..4))
            .map(|_| (kinds[self.rng.usize(..2)], self.rng.u16(..)))
            .collect();
        tagged(frame, &tags)
    }

    /// Breaks something.
    fn mutate(&mut self, frame: &mut Vec<u8>) {
        let rng = &mut self.rng;
        let ip = 14.min(frame.len() - 1);
        let place = |rng: &mut Rng, first: usize, last: usize| {
            rng.usize(first.min(frame.len() - 1)..=last.min(frame.len() - 1))
        };
        match rng.u8(..9) {
            0 => {
                let at = place(rng, 12, 90);
                frame[at] ^= 1 << rng.u8(..8);
            }
            1 => {
                let at = place(rng, 12, 90);
                frame[at] = [0, 1, 2, 0x7f, 0x80, 0xff, rng.u8(..)][rng.usize(..7)];
            }
            2 => {
                let length = rng.usize(14..=frame.len());
                frame.truncate(length.max(14));
            }
            3 => frame.extend(std::iter::repeat_with(|| rng.u8(..)).take(40)),
            4 => {
                let at = place(rng, ip + 2, ip + 5); // a length
                frame[at] = rng.u8(..);
            }
            5 => frame[ip] = [0x40, 0x44, 0x45, 0x46, 0x4f, 0x55, 0x60, 0x65][rng.usize(..8)],
            6 => {
                let at = place(rng, ip + 6, ip + 9); // protocol, hops, offset
                frame[at] = [0, 1, 6, 17, 43, 44, 58, 60, 255][rng.usize(..9)];
            }
            7 => {
                let at = place(rng, ip + 20, ip + 60); // flags, ports, checksums
                frame[at] = rng.u8(..);
            }
            _ => {
                let (from, to) = (place(rng, 12, 60), place(rng, 12, 60));
                frame[to] = frame[from];
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn address(bytes: &[u8], v6: bool) -> Option<IpAddr> {
    Some(if v6 {
        <[u8; 16]>::try_from(bytes.get(..16)?).ok()?.into()
    } else {
        <[u8; 4]>::try_from(bytes.get(..4)?).ok()?.into()
    })
}
