//! Echo requests and replies (RFC 792, RFC 4443).

const V4_REQUEST: u8 = 8;
const V4_REPLY: u8 = 0;
const V6_REQUEST: u8 = 128;
const V6_REPLY: u8 = 129;

/// What makes a request ours.
#[derive(Clone, Debug)]
pub struct Echo {
    /// Ours alone on this machine, with luck; the payload is what tells for sure.
    pub id: u16,
    /// Of this request.
    pub sequence: u16,
    /// Random.
    pub payload: [u8; 16],
}

/// An echo request. The ICMPv6 checksum covers addresses that the kernel chooses; the kernel fills
/// it in (RFC 3542 section 3.1).
pub fn request(echo: &Echo, v6: bool) -> Vec<u8> {
    let mut bytes = vec![if v6 { V6_REQUEST } else { V4_REQUEST }, 0, 0, 0];
    bytes.extend(echo.id.to_be_bytes());
    bytes.extend(echo.sequence.to_be_bytes());
    bytes.extend(echo.payload);
    if !v6 {
        let sum = checksum(&bytes).to_be_bytes();
        bytes[2..4].copy_from_slice(&sum);
    }
    bytes
}

/// Whether a message is the reply to a request. `id` is left out where the kernel matched it.
pub fn is_reply(message: &[u8], echo: &Echo, id: Option<u16>, v6: bool) -> bool {
    let Some((header, payload)) = message.split_first_chunk::<8>() else { return false };
    let kind = if v6 { V6_REPLY } else { V4_REPLY };
    header[..2] == [kind, 0]
        && id.is_none_or(|id| header[4..6] == id.to_be_bytes())
        && header[6..8] == echo.sequence.to_be_bytes()
        && payload == echo.payload
}

/// A packet without its IPv4 header.
pub fn strip_ipv4(packet: &[u8]) -> &[u8] {
    let header = packet.first().map_or(0, |first| usize::from(first & 0x0F) * 4);
    packet.get(header..).unwrap_or_default()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).expect("the carries were folded in")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Echo {
        Echo { id: 0x1234, sequence: 7, payload: [0xAB; 16] }
    }

    fn reply(echo: &Echo, v6: bool) -> Vec<u8> {
        let mut bytes = request(echo, v6);
        bytes[0] = if v6 { 129 } else { 0 };
        bytes
    }

    #[test]
    fn a_request_sums_up_to_zero() {
        assert_eq!(checksum(&request(&echo(), false)), 0);
        // RFC 1071 section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7]), !0xDDF2);
    }

    #[test]
    fn only_the_reply_with_our_id_sequence_and_payload_counts() {
        for v6 in [false, true] {
            let ours = echo();
            assert!(is_reply(&reply(&ours, v6), &ours, Some(ours.id), v6));
            assert!(!is_reply(&request(&ours, v6), &ours, Some(ours.id), v6), "our own request");
            for other in [
                Echo { id: 1, ..echo() },
                Echo { sequence: 8, ..echo() },
                Echo { payload: [0; 16], ..echo() },
            ] {
                assert!(!is_reply(&reply(&other, v6), &ours, Some(ours.id), v6), "{other:?}");
            }
            let whole = reply(&ours, v6);
            for cut in 0..whole.len() {
                assert!(!is_reply(&whole[..cut], &ours, Some(ours.id), v6));
            }
        }
    }

    #[test]
    fn an_ipv4_header_with_options_is_stripped() {
        let mut packet = vec![0x46; 24];
        packet.extend([1, 2, 3]);
        assert_eq!(strip_ipv4(&packet), [1, 2, 3]);
        assert!(strip_ipv4(&[0x4F, 0]).is_empty());
        assert!(strip_ipv4(&[]).is_empty());
    }
}
