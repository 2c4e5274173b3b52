//! The command sets of C-ECHO (PS3.7 section 9.3.5): Implicit VR Little Endian, group 0000 only.

/// SOP class "Verification" (PS3.4 annex A is not needed for anything else here).
pub const VERIFICATION: &str = "1.2.840.10008.1.1";

const C_ECHO_RQ: u16 = 0x0030;
const C_ECHO_RSP: u16 = 0x8030;
const NO_DATA_SET: u16 = 0x0101;

const GROUP_LENGTH: u16 = 0x0000;
const AFFECTED_SOP_CLASS: u16 = 0x0002;
const COMMAND_FIELD: u16 = 0x0100;
const MESSAGE_ID: u16 = 0x0110;
const MESSAGE_ID_RESPONDED_TO: u16 = 0x0120;
const DATA_SET_TYPE: u16 = 0x0800;
const STATUS: u16 = 0x0900;

/// A C-ECHO-RQ.
pub fn echo_request(message_id: u16) -> Vec<u8> {
    let mut uid = VERIFICATION.as_bytes().to_vec();
    if uid.len() % 2 == 1 {
        uid.push(0); // UIDs are padded to even length with NUL (PS3.5 section 9.1).
    }
    let mut body = Vec::new();
    element(&mut body, AFFECTED_SOP_CLASS, &uid);
    element(&mut body, COMMAND_FIELD, &C_ECHO_RQ.to_le_bytes());
    element(&mut body, MESSAGE_ID, &message_id.to_le_bytes());
    element(&mut body, DATA_SET_TYPE, &NO_DATA_SET.to_le_bytes());
    let length = u32::try_from(body.len()).expect("a C-ECHO-RQ has a few dozen bytes");
    let mut set = Vec::new();
    element(&mut set, GROUP_LENGTH, &length.to_le_bytes());
    set.extend(body);
    set
}

fn element(out: &mut Vec<u8>, number: u16, value: &[u8]) {
    out.extend(0u16.to_le_bytes());
    out.extend(number.to_le_bytes());
    let length = u32::try_from(value.len()).expect("command elements are short");
    out.extend(length.to_le_bytes());
    out.extend(value);
}

/// The status of a C-ECHO-RSP to our request; 0000H is success.
///
/// # Errors
/// In words, when the bytes are no such response.
pub fn echo_status(set: &[u8], message_id: u16) -> Result<u16, String> {
    let (mut command, mut answered, mut status) = (None, None, None);
    let mut rest = set;
    while !rest.is_empty() {
        let (number, value, after) = next_element(rest)?;
        match number {
            COMMAND_FIELD => command = Some(us(value)?),
            MESSAGE_ID_RESPONDED_TO => answered = Some(us(value)?),
            STATUS => status = Some(us(value)?),
            _ => {}
        }
        rest = after;
    }
    match command {
        Some(C_ECHO_RSP) => {}
        Some(other) => {
            return Err(format!("expected C-ECHO-RSP (8030H), got command {other:04X}H"));
        }
        None => return Err("the response has no Command Field (0000,0100)".into()),
    }
    match answered {
        Some(id) if id == message_id => {}
        Some(id) => {
            return Err(format!("C-ECHO-RSP answers message {id}, not ours ({message_id})"));
        }
        None => return Err("C-ECHO-RSP without (0000,0120), the message it answers".into()),
    }
    status.ok_or_else(|| "C-ECHO-RSP without a Status (0000,0900)".into())
}

/// Element number of group 0000, value, and what follows.
fn next_element(bytes: &[u8]) -> Result<(u16, &[u8], &[u8]), String> {
    let cut =
        || "the response's command set is cut off or not Implicit VR Little Endian".to_owned();
    let (group, rest) = bytes.split_first_chunk().ok_or_else(cut)?;
    let (number, rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
    if u16::from_le_bytes(*group) != 0 {
        return Err(cut());
    }
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?;
    let (value, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
    Ok((u16::from_le_bytes(*number), value, rest))
}

fn us(value: &[u8]) -> Result<u16, String> {
    let bytes = value.try_into().map_err(|_| "a US element of the response is not 2 bytes long")?;
    Ok(u16::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn response(command: u16, answers: u16, status: u16) -> Vec<u8> {
        let mut set = Vec::new();
        element(&mut set, COMMAND_FIELD, &command.to_le_bytes());
        element(&mut set, MESSAGE_ID_RESPONDED_TO, &answers.to_le_bytes());
        element(&mut set, STATUS, &status.to_le_bytes());
        set
    }

    #[test]
    fn a_request_has_the_five_elements_in_order_and_a_true_group_length() {
        let set = echo_request(7);
        let mut rest = set.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (number, value, after) = next_element(rest).unwrap();
            found.push((number, value.to_vec()));
            rest = after;
        }
        let length = u32::try_from(set.len() - 12).unwrap();
        assert_eq!(found[0], (0x0000, length.to_le_bytes().to_vec()));
        assert_eq!(found[1], (0x0002, b"1.2.840.10008.1.1\0".to_vec()));
        assert_eq!(found[2], (0x0100, vec![0x30, 0]));
        assert_eq!(found[3], (0x0110, vec![7, 0]));
        assert_eq!(found[4], (0x0800, vec![1, 1]));
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn the_status_is_read_and_anything_but_our_response_is_named() {
        assert_eq!(echo_status(&response(0x8030, 7, 0), 7), Ok(0));
        assert_eq!(echo_status(&response(0x8030, 7, 0x0110), 7), Ok(0x0110));
        let other = echo_status(&response(0x8001, 7, 0), 7).unwrap_err();
        assert!(other.contains("8001H"), "{other}");
        let id = echo_status(&response(0x8030, 8, 0), 7).unwrap_err();
        assert!(id.contains("message 8"), "{id}");
        let set = response(0x8030, 7, 0);
        assert!(echo_status(&set[..set.len() - 1], 7).unwrap_err().contains("cut off"));
        assert!(echo_status(&set[..set.len() - 10], 7).unwrap_err().contains("(0000,0900)"));
        assert!(echo_status(b"", 7).unwrap_err().contains("(0000,0100)"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = echo_status(&bytes, 1);
        }
    }
}
