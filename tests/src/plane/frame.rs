//! Ethernet frames for fixtures: built with right checksums, and judged by recomputing them.

use std::net::{IpAddr, SocketAddr};

use lb_common::packet::checksum::{fold, sum};

use super::{CLIENT_MAC, LB_MAC};

/// A TCP segment or UDP datagram with everything that a fixture may want to vary.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Destination MAC address.
    pub dst_mac: [u8; 6],
    /// Source MAC address.
    pub src_mac: [u8; 6],
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
    /// Protocol: 6 or 17.
    pub protocol: u8,
    /// TCP flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window.
    pub window: u16,
    /// Time to live.
    pub ttl: u8,
    /// IPv4 options (a multiple of four bytes).
    pub options: Vec<u8>,
    /// What the segment carries.
    pub payload: Vec<u8>,
    /// Bytes behind the packet.
    pub padding: usize,
    /// Send UDP without a checksum.
    pub no_checksum: bool,
    /// IPv4 identification.
    pub id: u16,
}

/// FIN.
pub const FIN: u8 = 1;
/// SYN.
pub const SYN: u8 = 2;
/// RST.
pub const RST: u8 = 4;
/// ACK.
pub const ACK: u8 = 16;

impl Frame {
    /// A TCP segment from a client to medlb.
    pub fn tcp(src: &str, dst: &str, flags: u8) -> Self {
        Self {
            dst_mac: LB_MAC,
            src_mac: CLIENT_MAC,
            src: src.parse().expect("test address"),
            dst: dst.parse().expect("test address"),
            protocol: 6,
            flags,
            seq: 1000,
            ack: if flags & ACK != 0 { 2000 } else { 0 },
            window: 64240,
            ttl: 64,
            options: Vec::new(),
            payload: Vec::new(),
            padding: 0,
            no_checksum: false,
            id: 0x1234,
        }
    }

    /// A UDP datagram from a client to medlb.
    pub fn udp(src: &str, dst: &str) -> Self {
        Self { protocol: 17, flags: 0, ack: 0, ..Self::tcp(src, dst, 0) }
    }

    /// With a payload.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// With other addresses and ports, and one hop less: what NAT makes of it.
    pub fn translated(mut self, src: &str, dst: &str) -> Self {
        self.src = src.parse().expect("test address");
        self.dst = dst.parse().expect("test address");
        self.ttl -= 1;
        self
    }

    /// With other MAC addresses.
    pub fn macs(mut self, dst: [u8; 6], src: [u8; 6]) -> Self {
        self.dst_mac = dst;
        self.src_mac = src;
        self
    }

    /// The bytes, checksums recomputed from nothing.
    pub fn bytes(&self) -> Vec<u8> {
        let segment = self.segment();
        let mut out = Vec::new();
        out.extend(self.dst_mac);
        out.extend(self.src_mac);
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                out.extend([0x08, 0x00]);
                let ihl = 5 + self.options.len() / 4;
                let mut ip = vec![0x40 | ihl as u8, 0];
                ip.extend((ihl as u16 * 4 + segment.len() as u16).to_be_bytes());
                ip.extend(self.id.to_be_bytes());
                ip.extend([0x40, 0, self.ttl, self.protocol, 0, 0]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(&self.options);
                let check = !fold(sum(&ip));
                ip[10..12].copy_from_slice(&check.to_ne_bytes());
                out.extend(ip);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                out.extend((segment.len() as u16).to_be_bytes());
                out.extend([self.protocol, self.ttl]);
                out.extend(src.octets());
                out.extend(dst.octets());
            }
            _ => panic!("addresses of two families"),
        }
        out.extend(segment);
        out.extend(std::iter::repeat_n(0, self.padding));
        out
    }

    fn segment(&self) -> Vec<u8> {
        let mut l4 = Vec::new();
        l4.extend(self.src.port().to_be_bytes());
        l4.extend(self.dst.port().to_be_bytes());
        let at = if self.protocol == 6 {
            l4.extend(self.seq.to_be_bytes());
            l4.extend(self.ack.to_be_bytes());
            l4.extend([0x50, self.flags]);
            l4.extend(self.window.to_be_bytes());
            l4.extend([0; 4]);
            16
        } else {
            l4.extend((8 + self.payload.len() as u16).to_be_bytes());
            l4.extend([0; 2]);
            6
        };
        l4.extend(&self.payload);
        let mut pseudo = Vec::new();
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                pseudo.extend(src.octets());
                pseudo.extend(dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                pseudo.extend(src.octets());
                pseudo.extend(dst.octets());
            }
            _ => panic!("addresses of two families"),
        }
        let mut total = sum(&pseudo) + sum(&l4);
        total += u16::from_ne_bytes([0, self.protocol]) as u64;
        total += u16::from_ne_bytes((l4.len() as u16).to_be_bytes()) as u64;
        let mut check = !fold(total);
        if self.protocol == 17 {
            if self.no_checksum {
                check = 0;
            } else if check == 0 {
                check = 0xffff;
            }
        }
        l4[at..at + 2].copy_from_slice(&check.to_ne_bytes());
        l4
    }
}
