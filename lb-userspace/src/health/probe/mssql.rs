//! `mssql`: a TDS pre-login exchange (MS-TDS 2.2.6.5), which SQL Server answers before it knows
//! anybody. No login, no driver.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout_at;

use super::stream::Stream;
use super::{Exchange, Finding, Verdict, connect, words};

const PRELOGIN: u8 = 0x12;
const TABULAR_RESULT: u8 = 0x04;
const END_OF_MESSAGE: u8 = 0x01;
const HEADER: usize = 8;

const VERSION: u8 = 0x00;
const ENCRYPTION: u8 = 0x01;
const INSTANCE: u8 = 0x02;
const THREAD_ID: u8 = 0x03;
const TERMINATOR: u8 = 0xFF;
/// "I could not encrypt": the exchange ends here, and no TLS handshake is wanted.
const ENCRYPT_NOT_SUPPORTED: u8 = 0x02;

/// Answers to a pre-login are some fifty bytes.
const LONGEST_ANSWER: usize = 16 * 1024;

/// Connects, and asks for the version unless a connection is enough.
pub async fn check(exchange: &Exchange<'_>, prelogin: bool) -> Verdict {
    if !prelogin {
        return connect::check(exchange).await;
    }
    let mut stream = exchange.open(None, "").await?;
    let verdict = ask(exchange, &mut stream).await;
    stream.close().await;
    verdict
}

async fn ask(exchange: &Exchange<'_>, stream: &mut Stream) -> Verdict {
    let fail = |detail: String| Finding::fail("prelogin", detail);
    let talk = async {
        stream.write_all(&request()).await?;
        stream.flush().await?;
        receive(stream).await
    };
    let answer = match timeout_at(exchange.deadline, talk).await {
        Ok(Ok(answer)) => answer.map_err(fail)?,
        Ok(Err(error)) => {
            return Err(fail(format!("{} instead of a pre-login answer", words::io_error(&error))));
        }
        Err(_) => return Err(fail(format!("no pre-login answer {}", exchange.within()))),
    };
    let version = version(&answer).map_err(fail)?;
    Ok(Finding::pass("prelogin", format!("SQL Server {version}")))
}

/// The pre-login packet: options with their places, a terminator, their data.
fn request() -> Vec<u8> {
    let options: [(u8, &[u8]); 4] = [
        (VERSION, &[0, 0, 0, 0, 0, 0]),
        (ENCRYPTION, &[ENCRYPT_NOT_SUPPORTED]),
        (INSTANCE, &[0]),
        (THREAD_ID, &[0, 0, 0, 0]),
    ];
    let mut place = options.len() * 5 + 1;
    let (mut table, mut data) = (Vec::new(), Vec::<u8>::new());
    for (option, value) in options {
        table.push(option);
        for number in [place, value.len()] {
            table.extend(u16::try_from(number).expect("a pre-login is short").to_be_bytes());
        }
        place += value.len();
        data.extend(value);
    }
    table.push(TERMINATOR);
    let length = u16::try_from(HEADER + table.len() + data.len()).expect("a pre-login is short");
    let [high, low] = length.to_be_bytes();
    let mut packet = vec![PRELOGIN, END_OF_MESSAGE, high, low, 0, 0, 0, 0];
    packet.extend(table);
    packet.extend(data);
    packet
}

/// The payload of the answer, which may come in several packets. The outer error is the
/// connection's, the inner one the protocol's.
async fn receive(stream: &mut Stream) -> std::io::Result<Result<Vec<u8>, String>> {
    let mut payload = Vec::new();
    loop {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).await?;
        let [kind, status, high, low, ..] = header;
        if kind != TABULAR_RESULT {
            return Ok(Err(format!("not TDS: the answer starts with {kind:02X}, not 04")));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(rest) = length.checked_sub(HEADER) else {
            return Ok(Err(format!("not TDS: a packet of {length} bytes")));
        };
        let start = payload.len();
        if start + rest > LONGEST_ANSWER {
            return Ok(Err("the answer is far too long for a pre-login".into()));
        }
        payload.resize(start + rest, 0);
        stream.read_exact(&mut payload[start..]).await?;
        if status & END_OF_MESSAGE != 0 {
            return Ok(Ok(payload));
        }
    }
}

/// `16.0.1000` out of the answer's VERSION option.
fn version(payload: &[u8]) -> Result<String, String> {
    let cut = || "the pre-login answer is malformed".to_owned();
    let mut at = 0;
    loop {
        match payload.get(at) {
            None => return Err(cut()),
            Some(&TERMINATOR) => return Err("the pre-login answer has no version".into()),
            Some(&VERSION) => break,
            Some(_) => at += 5,
        }
    }
    let number = |from: usize| {
        let bytes = payload.get(from..from + 2)?;
        Some(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    };
    let place = number(at + 1).ok_or_else(cut)?;
    let value = payload.get(place..place + 6).ok_or_else(cut)?;
    if number(at + 3).is_none_or(|length| length < 6) {
        return Err(cut());
    }
    Ok(format!("{}.{}.{}", value[0], value[1], u16::from_be_bytes([value[2], value[3]])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_request_is_what_the_specification_draws() {
        let expected = [
            &[0x12, 0x01, 0x00, 0x29, 0, 0, 0, 0][..],
            &[0x00, 0x00, 0x15, 0x00, 0x06],
            &[0x01, 0x00, 0x1B, 0x00, 0x01],
            &[0x02, 0x00, 0x1C, 0x00, 0x01],
            &[0x03, 0x00, 0x1D, 0x00, 0x04],
            &[0xFF],
            &[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0],
        ];
        assert_eq!(request(), expected.concat());
    }

    #[test]
    fn the_version_is_found_wherever_it_is() {
        let answer = [1, 0, 11, 0, 1, 0, 0, 12, 0, 6, 0xFF, 2, 16, 0, 0x03, 0xE8, 0, 0];
        assert_eq!(version(&answer), Ok("16.0.1000".into()));
        assert!(version(&answer[..15]).unwrap_err().contains("malformed"));
        assert!(version(&[1, 0, 6, 0, 1, 0xFF, 2]).unwrap_err().contains("no version"));
        assert!(version(&[]).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = version(&bytes);
        }
    }
}
