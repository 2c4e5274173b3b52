//! Fragments, ICMP errors, VLAN tags and extension headers for fixtures.

use std::net::IpAddr;

use lb_common::packet::checksum::{fold, sum};

/// An IPv4 frame's payload cut into fragments of at most `size` bytes (a multiple of eight).
pub fn fragment_v4(frame: &[u8], size: usize) -> Vec<Vec<u8>> {
    let ihl = usize::from(frame[14] & 0xf) * 4;
    let payload = &frame[14 + ihl..];
    let mut out = Vec::new();
    for (i, chunk) in payload.chunks(size).enumerate() {
        let mut piece = frame[..14 + ihl].to_vec();
        let more = (i + 1) * size < payload.len();
        let field = (i * size / 8) as u16 | if more { 0x2000 } else { 0 };
        piece[16..18].copy_from_slice(&((ihl + chunk.len()) as u16).to_be_bytes());
        piece[20..22].copy_from_slice(&field.to_be_bytes());
        mend_ipv4(&mut piece);
        piece.extend(chunk);
        out.push(piece);
    }
    out
}

/// Recomputes the checksum of the IPv4 header of a frame.
pub fn mend_ipv4(frame: &mut [u8]) {
    let ihl = usize::from(frame[14] & 0xf) * 4;
    frame[24..26].fill(0);
    let check = !fold(sum(&frame[14..14 + ihl]));
    frame[24..26].copy_from_slice(&check.to_ne_bytes());
}

/// An IPv6 frame's payload cut into fragments, with fragment headers.
pub fn fragment_v6(frame: &[u8], size: usize, id: u32) -> Vec<Vec<u8>> {
    let payload = &frame[54..];
    let mut out = Vec::new();
    for (i, chunk) in payload.chunks(size).enumerate() {
        let mut piece = frame[..54].to_vec();
        let more = (i + 1) * size < payload.len();
        piece[18..20].copy_from_slice(&(chunk.len() as u16 + 8).to_be_bytes());
        let protocol = piece[20];
        piece[20] = 44;
        piece.extend([protocol, 0]);
        piece.extend(((i * size) as u16 | u16::from(more)).to_be_bytes());
        piece.extend(id.to_be_bytes());
        piece.extend(chunk);
        out.push(piece);
    }
    out
}

/// An IPv6 frame with extension headers (number, length in bytes) put before its payload.
pub fn extend_v6(frame: &[u8], headers: &[(u8, usize)]) -> Vec<u8> {
    let mut chain = Vec::new();
    let last = frame[20];
    for (i, (_, length)) in headers.iter().enumerate() {
        let next = headers.get(i + 1).map_or(last, |h| h.0);
        chain.push(next);
        chain.push((length / 8 - 1) as u8);
        chain.push(1); // PadN
        chain.push((length - 4) as u8);
        chain.extend(std::iter::repeat_n(0, length - 4));
    }
    let mut out = frame[..54].to_vec();
    if let Some(first) = headers.first() {
        out[20] = first.0;
    }
    let length = (frame.len() - 54 + chain.len()) as u16;
    out[18..20].copy_from_slice(&length.to_be_bytes());
    out.extend(chain);
    out.extend(&frame[54..]);
    out
}

/// A tagged frame: tags (EtherType, identifier) from the outside in.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    for (ethertype, id) in tags {
        out.extend(ethertype.to_be_bytes());
        out.extend(id.to_be_bytes());
    }
    out.extend(&frame[12..]);
    out
}

/// An ICMP error frame.
#[derive(Clone, Debug)]
pub struct IcmpError {
    /// Destination MAC address.
    pub dst_mac: [u8; 6],
    /// Source MAC address.
    pub src_mac: [u8; 6],
    /// Who sends it.
    pub src: IpAddr,
    /// Who is to hear of it.
    pub dst: IpAddr,
    /// Type and code.
    pub kind: (u8, u8),
    /// MTU, or 0.
    pub rest: u32,
    /// The quoted IP packet.
    pub quoted: Vec<u8>,
    /// Time to live.
    pub ttl: u8,
    /// IPv4: the "do not fragment" bit.
    pub df: bool,
}

impl IcmpError {
    /// The bytes, checksums recomputed from nothing.
    pub fn bytes(&self) -> Vec<u8> {
        let mut icmp = vec![self.kind.0, self.kind.1, 0, 0];
        icmp.extend(self.rest.to_be_bytes());
        icmp.extend(&self.quoted);
        let mut out = Vec::new();
        out.extend(self.dst_mac);
        out.extend(self.src_mac);
        let mut pseudo = 0;
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                out.extend([8, 0, 0x45, 0]);
                out.extend((20 + icmp.len() as u16).to_be_bytes());
                out.extend([0, 0, if self.df { 0x40 } else { 0 }, 0, self.ttl, 1, 0, 0]);
                out.extend(src.octets());
                out.extend(dst.octets());
                mend_ipv4(&mut out);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                out.extend((icmp.len() as u16).to_be_bytes());
                out.extend([58, self.ttl]);
                out.extend(src.octets());
                out.extend(dst.octets());
                pseudo = sum(&src.octets()) + sum(&dst.octets());
                pseudo += sum(&(icmp.len() as u16).to_be_bytes()) + sum(&[0, 58]);
            }
            _ => panic!("addresses of two families"),
        }
        let check = !fold(pseudo + sum(&icmp));
        icmp[2..4].copy_from_slice(&check.to_ne_bytes());
        out.extend(icmp);
        out
    }
}
