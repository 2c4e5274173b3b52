//! Finds every checksum of a frame, judges it by recomputation, and mends it. Shares no code with
//! the data path.

/// One checksum: where it lies, what it covers, and the sum of its pseudo header.
#[derive(Clone, Copy, Debug)]
struct Sum {
    at: usize,
    start: usize,
    end: usize,
    pseudo: u32,
    udp: bool,
}

/// What a frame is, as far as it makes sense.
#[derive(Default)]
pub struct Frame {
    sums: Vec<Sum>,
    /// The transport protocol.
    pub protocol: u8,
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn ones(bytes: &[u8], start: u32) -> u16 {
    let mut total = start;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
    }
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Parses an Ethernet frame. None: not a whole TCP, UDP or ICMP packet, or fragment of one.
pub fn parse(frame: &[u8]) -> Option<Frame> {
    let mut at = 12;
    for _ in 0..2 {
        if frame.len() >= at + 6 && matches!(word(frame, at), 0x8100 | 0x88a8) {
            at += 4;
        }
    }
    let mut found = Frame::default();
    match word(frame.get(..at + 2)?, at) {
        0x0800 => ipv4(frame, at + 2, frame.len(), &mut found, false)?,
        0x86dd => ipv6(frame, at + 2, frame.len(), &mut found, false)?,
        _ => return None,
    }
    Some(found)
}

fn ipv4(frame: &[u8], at: usize, end: usize, found: &mut Frame, quoted: bool) -> Option<()> {
    let ip = frame.get(at..end)?;
    if ip.len() < 20 || ip[0] >> 4 != 4 {
        return None;
    }
    let (header, length) = (usize::from(ip[0] & 15) * 4, word(ip, 2));
    if header < 20 || ip.len() < header || length < header {
        return None;
    }
    if !quoted {
        found.protocol = ip[9];
    }
    let whole = length <= ip.len();
    if !whole && !quoted {
        return None;
    }
    if word(ip, 6) & 0x3fff == 0 && whole {
        let pseudo = u32::from(ones(&ip[12..20], u32::from(ip[9])));
        transport(frame, at + header, at + length, ip[9], pseudo, found, quoted)?;
    }
    found.sums.push(Sum { at: at + 10, start: at, end: at + header, pseudo: 0, udp: false });
    Some(())
}

fn ipv6(frame: &[u8], at: usize, end: usize, found: &mut Frame, quoted: bool) -> Option<()> {
    let ip = frame.get(at..end)?;
    if ip.len() < 40 {
        return None;
    }
    let length = word(ip, 4) + 40;
    let (mut next, mut l4, mut fragment, mut later) = (ip[6], 40, false, false);
    while matches!(next, 0 | 43 | 44 | 60) && !later {
        let ext = ip.get(l4..l4 + 8)?;
        fragment |= next == 44 && word(ext, 2) & 0xfff9 != 0;
        later = next == 44 && word(ext, 2) & 0xfff8 != 0;
        l4 += if next == 44 { 8 } else { usize::from(ext[1]) * 8 + 8 };
        next = ext[0];
    }
    if !quoted {
        found.protocol = next;
    }
    if length > ip.len() || l4 > length {
        return if quoted { Some(()) } else { None };
    }
    if !fragment {
        let pseudo = u32::from(ones(&ip[8..40], u32::from(next)));
        transport(frame, at + l4, at + length, next, pseudo, found, quoted)?;
    }
    Some(())
}

fn transport(
    frame: &[u8],
    start: usize,
    end: usize,
    protocol: u8,
    pseudo: u32,
    found: &mut Frame,
    quoted: bool,
) -> Option<()> {
    let l4 = &frame[start..end];
    let length = l4.len() as u32;
    let mut sum = Sum { at: 0, start, end, pseudo: pseudo + length, udp: false };
    match protocol {
        // A quoted TCP checksum lies behind the eight bytes that are translated; nobody checks it.
        6 if quoted => return Some(()),
        6 if l4.len() >= 20 => sum.at = start + 16,
        17 if l4.len() >= 8 && word(l4, 4) == l4.len() => {
            (sum.at, sum.udp) = (start + 6, true);
        }
        1 | 58 if l4.len() >= 8 => {
            sum.at = start + 2;
            if protocol == 1 {
                sum.pseudo = 0;
            }
            // A quotation that makes no sense has no checksums.
            if protocol == 1 && matches!(l4[0], 3 | 11 | 12) && !quoted {
                let _ = ipv4(frame, start + 8, end, found, true);
            } else if protocol == 58 && (1..=4).contains(&l4[0]) && !quoted {
                let _ = ipv6(frame, start + 8, end, found, true);
            }
        }
        _ => return None,
    }
    found.sums.push(sum);
    Some(())
}

impl Frame {
    /// Whether all checksums are right.
    pub fn is_valid(&self, frame: &[u8]) -> bool {
        self.sums.iter().all(|sum| {
            let none = sum.udp && frame[sum.at..sum.at + 2] == [0, 0];
            none || ones(&frame[sum.start..sum.end], sum.pseudo) == 0xffff
        })
    }

    /// Makes all checksums right, those of quotations first.
    pub fn mend(&self, frame: &mut [u8]) {
        for sum in &self.sums {
            frame[sum.at..sum.at + 2].fill(0);
            let check = !ones(&frame[sum.start..sum.end], sum.pseudo);
            let check = if sum.udp && check == 0 { 0xffff } else { check };
            frame[sum.at..sum.at + 2].copy_from_slice(&check.to_be_bytes());
        }
    }
}
