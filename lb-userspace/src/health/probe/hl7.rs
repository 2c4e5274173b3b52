//! The little of HL7 version 2 that a check needs: a message with its own time and control id, and
//! the acknowledgement that names it. Nothing of a message's content leaves this file.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// Built in: an application-management query. It asks the engine how it is and concerns no patient.
const QUERY: &str = "MSH|^~\\&|MEDLB|HEALTHCHECK|||||NMQ^N01||P|2.4\r\
                     QRD||R|I|1|||1^RD|MEDLB|NST|MEDLB\r";

/// MSH fields as indices after a split at the field separator: MSH-1 is the separator itself.
const MSH_TIME: usize = 6;
const MSH_CONTROL_ID: usize = 9;

/// What an acknowledgement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// AA.
    Accept,
    /// AE, AR, CA, CE or CR.
    Other(&'static str),
}

impl Ack {
    /// The code of MSA-1.
    pub fn code(self) -> &'static str {
        match self {
            Ack::Accept => "AA",
            Ack::Other(code) => code,
        }
    }
}

/// A control id (MSH-10, at most 20 characters) that no other message of ours has.
pub fn control_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("MLB{:08X}{count:08X}", fastrand::u32(..))
}

/// The operator's message, or the built-in query, with this control id and time put into its MSH.
///
/// # Errors
/// In words, when the text has no MSH segment.
pub fn message(text: Option<&str>, id: &str, now: SystemTime) -> Result<String, String> {
    let text = text.unwrap_or(QUERY);
    // A YAML block has LF where HL7 has CR.
    let lines = text.split(['\r', '\n']).map(str::trim_end).filter(|line| !line.is_empty());
    let mut segments: Vec<String> = lines.map(str::to_owned).collect();
    let header = segments.first_mut().filter(|first| first.starts_with("MSH"));
    let header = header.ok_or("the message does not start with an MSH segment")?;
    let separator = header.chars().nth(3).ok_or("the MSH segment has no field separator")?;
    let mut fields: Vec<String> = header.split(separator).map(str::to_owned).collect();
    if fields.len() <= MSH_CONTROL_ID {
        fields.resize(MSH_CONTROL_ID + 1, String::new());
    }
    fields[MSH_TIME] = time_stamp(now);
    fields[MSH_CONTROL_ID] = id.to_owned();
    *header = fields.join(&separator.to_string());
    Ok(segments.join("\r") + "\r")
}

/// `20261120100000+0000`.
fn time_stamp(now: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(now).to_string();
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits + "+0000"
}

/// Reads a reply as the acknowledgement of the message with this control id.
///
/// # Errors
/// In words, when it is none.
pub fn acknowledgement(reply: &[u8], id: &str) -> Result<Ack, String> {
    let text = String::from_utf8_lossy(reply);
    let mut segments = text.split(['\r', '\n']).filter(|s| !s.is_empty());
    let header = segments.next().filter(|s| s.starts_with("MSH"));
    let header = header.ok_or("the reply does not start with an MSH segment")?;
    let separator = header.chars().nth(3).ok_or("the reply's MSH segment is cut off")?;
    let msa = segments.find_map(|s| s.strip_prefix("MSA")?.strip_prefix(separator));
    let mut fields = msa.ok_or("the reply has no MSA segment")?.split(separator).map(str::trim);
    let code = match fields.next().unwrap_or_default() {
        "AA" => Ack::Accept,
        "AE" => Ack::Other("AE"),
        "AR" => Ack::Other("AR"),
        "CA" => Ack::Other("CA"),
        "CE" => Ack::Other("CE"),
        "CR" => Ack::Other("CR"),
        _ => return Err("the reply's MSA-1 is no acknowledgement code".into()),
    };
    match fields.next().unwrap_or_default() {
        answered if answered == id => Ok(code),
        "" => Err(format!("ACK {} without MSA-2, the message it answers", code.code())),
        _ => Err(format!("ACK {} answers another message than ours", code.code())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_168_800)
    }

    #[test]
    fn the_built_in_query_concerns_no_patient() {
        let text = message(None, "ID1", at()).unwrap();
        assert!(
            text.starts_with(
                "MSH|^~\\&|MEDLB|HEALTHCHECK|||20261120100000+0000||NMQ^N01|ID1|P|2.4\r"
            ),
            "{text}"
        );
        assert!(!["ADT", "ORM", "ORU", "PID"].iter().any(|word| text.contains(word)));
    }

    #[test]
    fn the_operators_message_gets_our_time_and_control_id_whatever_its_line_ends() {
        let text = "MSH#^~\\&#A#B#C#D#19990101##QBP^Q11#OLD#P#2.5\nQPD#x\r\n\nRCP#I\n";
        let sent = message(Some(text), "ID2", at()).unwrap();
        let header = "MSH#^~\\&#A#B#C#D#20261120100000+0000##QBP^Q11#ID2#P#2.5";
        assert_eq!(sent, format!("{header}\rQPD#x\rRCP#I\r"));
        let short = message(Some("MSH|^~\\&|A"), "ID3", at()).unwrap();
        assert_eq!(short, "MSH|^~\\&|A||||20261120100000+0000|||ID3\r");
        assert!(message(Some("PID|1"), "ID", at()).unwrap_err().contains("MSH"));
        assert!(message(Some("MSH"), "ID", at()).is_err());
    }

    #[test]
    fn control_ids_differ_and_fit_into_twenty_characters() {
        let (one, two) = (control_id(), control_id());
        assert_ne!(one, two);
        assert!(one.len() <= 20, "{one}");
    }

    #[test]
    fn acknowledgements_are_read_with_their_own_separators() {
        let read = |text: &str| acknowledgement(text.as_bytes(), "ID");
        assert_eq!(read("MSH|^~\\&|X\rMSA|AA|ID\r"), Ok(Ack::Accept));
        assert_eq!(read("MSH#^~\\&#X\rSFT#1\rMSA#AE#ID#patient unknown"), Ok(Ack::Other("AE")));
        assert!(read("MSH|^~\\&|X\rMSA|AA|OTHER\r").unwrap_err().contains("another message"));
        assert!(read("MSH|^~\\&|X\rMSA|AA\r").unwrap_err().contains("without MSA-2"));
        assert!(read("MSH|^~\\&|X\rMSA|OK|ID\r").unwrap_err().contains("MSA-1"));
        assert!(read("MSH|^~\\&|X\rERR|1\r").unwrap_err().contains("no MSA"));
        assert!(read("hello").unwrap_err().contains("MSH"));
    }

    proptest! {
        #[test]
        fn no_reply_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = acknowledgement(&bytes, "ID");
        }

        #[test]
        fn no_message_makes_it_panic(text in "(MSH)?\\PC{0,80}") {
            let _ = message(Some(&text), "ID", at());
        }
    }
}
