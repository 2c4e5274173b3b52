//! The frames that the generator writes.

use std::net::Ipv4Addr;

use aya::Pod;

/// Words of a frame: the smallest that Ethernet has, without its check sequence.
const WORDS: usize = 15;
/// The same in bytes.
pub(super) const BYTES: usize = WORDS * 4;
/// A prime larger than this has no common factor with any number of flows that is not a multiple.
const STRIDE: u32 = 7919;

/// What lb-ebpf/src/bin/wire.rs reads; see there.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Settings {
    first: u32,
    flows: u32,
    stride: u32,
    interface: u32,
    ip_sum: u32,
    tcp_sum: u32,
    frame: [u8; BYTES],
}

// SAFETY: repr(C) over integers, without padding: 6 × 4 + 60 bytes, aligned to 4.
unsafe impl Pod for Settings {}

/// A direction to send in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// The generator's interface, in its namespace.
    pub interface: u32,
    /// Its MAC address, and that of the other end.
    pub from: [u8; 6],
    /// The other end's.
    pub to: [u8; 6],
    /// Where the packets go.
    pub address: Ipv4Addr,
    /// TCP port.
    pub port: u16,
}

/// The network that clients are in; their addresses count up from .1.
const CLIENTS: [u8; 4] = [10, 78, 0, 0];
const SYN: u8 = 0x02;
const PSH_ACK: u8 = 0x18;

impl Settings {
    /// SYNs of the flows from `first` on, each once in `flows` frames.
    pub(super) fn opening(path: &Path, first: u32, flows: u32) -> Self {
        Self::new(path, first, flows, 1, SYN)
    }

    /// Their next segments.
    pub(super) fn following(path: &Path, first: u32, flows: u32) -> Self {
        Self::new(path, first, flows, 1, PSH_ACK)
    }

    /// Segments of established flows, scattered.
    pub(super) fn established(path: &Path, flows: u32) -> Self {
        Self::new(path, 0, flows, STRIDE % flows, PSH_ACK)
    }

    /// What the bare forwarder needs.
    pub(super) fn forwarding(path: &Path) -> Self {
        Self::new(path, 0, 1, 0, 0)
    }

    fn new(path: &Path, first: u32, flows: u32, stride: u32, flags: u8) -> Self {
        let mut frame = [0; BYTES];
        frame[..6].copy_from_slice(&path.to);
        frame[6..12].copy_from_slice(&path.from);
        frame[12..14].copy_from_slice(&[8, 0]);
        let (ip, tcp) = frame[14..].split_at_mut(20);
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(BYTES as u16 - 14).to_be_bytes());
        ip[6] = 0x40; // do not fragment
        (ip[8], ip[9]) = (64, 6);
        ip[12..16].copy_from_slice(&CLIENTS);
        ip[16..20].copy_from_slice(&path.address.octets());
        tcp[2..4].copy_from_slice(&path.port.to_be_bytes());
        tcp[4..8].copy_from_slice(&1000u32.to_be_bytes());
        if flags & SYN == 0 {
            tcp[8..12].copy_from_slice(&1000u32.to_be_bytes());
        }
        (tcp[12], tcp[13]) = (0x50, flags);
        tcp[14..16].copy_from_slice(&1024u16.to_be_bytes());
        let ip_sum = sum(ip);
        let tcp_sum = sum(tcp) + sum(&ip[12..20]) + 6 + tcp.len() as u32;
        Self { first, flows, stride, interface: path.interface, ip_sum, tcp_sum, frame }
    }
}

/// The sum of 16-bit words in network order, with its carries still in the upper half.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_visits_every_flow() {
        for flows in [512, 60_000] {
            let stride = STRIDE % flows;
            let mut seen = vec![false; flows as usize];
            let mut n = 0;
            for _ in 0..flows {
                n = (n + stride) % flows;
                seen[n as usize] = true;
            }
            assert!(seen.into_iter().all(|seen| seen));
        }
    }
}
