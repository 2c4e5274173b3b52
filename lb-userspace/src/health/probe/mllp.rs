//! `mllp`: HL7 version 2 over the minimal lower layer protocol. By default the listener only has to
//! hold the connection; with a message, it has to acknowledge it.

use std::time::SystemTime;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::connect::HOLD;
use super::hl7::{self, Ack};
use super::stream::{Held, Stream};
use super::{Exchange, Finding, Verdict, words};
use crate::config::model::{MllpMessage, Tls};

const START: u8 = 0x0B;
const END: u8 = 0x1C;
const CR: u8 = 0x0D;

/// A reply longer than this is no acknowledgement.
const LONGEST_REPLY: usize = 64 * 1024;

/// Connects, and holds the connection or sends the message.
pub async fn check(
    exchange: &Exchange<'_>,
    tls: Option<&Tls>,
    message: Option<&MllpMessage>,
) -> Verdict {
    let mut stream = exchange.open(tls, &exchange.address()).await?;
    let verdict = match message {
        None => hold(exchange, &mut stream).await,
        Some(message) => exchange_message(exchange, &mut stream, message).await,
    };
    stream.close().await;
    verdict
}

async fn hold(exchange: &Exchange<'_>, stream: &mut Stream) -> Verdict {
    match stream.hold((Instant::now() + HOLD).min(exchange.deadline)).await {
        Held::Quiet | Held::Spoke => Ok(Finding::pass("hold", "the listener holds the connection")),
        Held::Eof => Err(Finding::fail("hold", "the listener closed the connection at once")),
        Held::Broken(error) => {
            let what = words::io_error(&error);
            Err(Finding::fail("hold", format!("{what} as soon as it was open")))
        }
    }
}

async fn exchange_message(
    exchange: &Exchange<'_>,
    stream: &mut Stream,
    message: &MllpMessage,
) -> Verdict {
    let id = hl7::control_id();
    let text = hl7::message(message.text.as_deref(), &id, SystemTime::now())
        .map_err(|e| Finding::fail("config", e))?;
    let mut frame = Vec::with_capacity(text.len() + 3);
    frame.push(START);
    frame.extend(text.as_bytes());
    frame.extend([END, CR]);
    let send = async {
        stream.write_all(&frame).await?;
        stream.flush().await
    };
    match timeout_at(exchange.deadline, send).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let what = words::io_error(&error);
            return Err(Finding::fail("send", format!("{what} while sending the message")));
        }
        Err(_) => return Err(Finding::fail("send", "the listener takes no data")),
    }
    let fail = |detail: String| Finding::fail("ack", detail);
    let mut unread = BytesMut::new();
    loop {
        let reply = receive(exchange, stream, &mut unread).await.map_err(fail)?;
        let ack = hl7::acknowledgement(&reply, &id).map_err(fail)?;
        return match (message.expect_aa, ack) {
            (false, ack) => Ok(Finding::pass("ack", format!("ACK {}", ack.code()))),
            (true, Ack::Accept) => Ok(Finding::pass("ack", "ACK AA")),
            // Enhanced mode: the commit comes before the application's answer.
            (true, Ack::Other("CA")) => continue,
            (true, ack) => Err(fail(format!("ACK {}, but AA was expected", ack.code()))),
        };
    }
}

/// The bytes of the next frame without its block characters.
async fn receive(
    exchange: &Exchange<'_>,
    stream: &mut Stream,
    unread: &mut BytesMut,
) -> Result<Vec<u8>, String> {
    loop {
        if let Some(frame) = take_frame(unread)? {
            return Ok(frame);
        }
        if unread.len() > LONGEST_REPLY {
            return Err(format!("the reply is longer than {} KiB", LONGEST_REPLY / 1024));
        }
        match timeout_at(exchange.deadline, stream.read_buf(unread)).await {
            Ok(Ok(0)) if unread.is_empty() => {
                return Err("the listener closed the connection without an ACK".into());
            }
            Ok(Ok(0)) => return Err("the listener closed the connection within its reply".into()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                return Err(format!("{} while waiting for the ACK", words::io_error(&error)));
            }
            Err(_) if unread.is_empty() => return Err(format!("no ACK {}", exchange.within())),
            Err(_) => return Err(format!("no end of the reply {}", exchange.within())),
        }
    }
}

/// Takes a frame that ends in 0x1C; the CR after it may be missing or late, and is skipped.
fn take_frame(unread: &mut BytesMut) -> Result<Option<Vec<u8>>, String> {
    while unread.first() == Some(&CR) {
        unread.advance(1);
    }
    match unread.first() {
        None => return Ok(None),
        Some(&START) => {}
        Some(other) => {
            return Err(format!("the reply is not MLLP: it starts with {other:02X}, not 0B"));
        }
    }
    let Some(end) = unread.iter().take(LONGEST_REPLY).position(|&byte| byte == END) else {
        return Ok(None);
    };
    let frame = unread.split_to(end + 1);
    Ok(Some(frame[1..end].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_ends_at_its_end_block_with_or_without_a_last_cr() {
        let mut unread = BytesMut::from(&b"\x0BMSH|a\r\x1C\r\x0BMSH|b\x1C"[..]);
        assert_eq!(take_frame(&mut unread), Ok(Some(b"MSH|a\r".to_vec())));
        assert_eq!(take_frame(&mut unread), Ok(Some(b"MSH|b".to_vec())));
        assert_eq!(take_frame(&mut unread), Ok(None));
        let mut unread = BytesMut::from(&b"\x0BMSH|a"[..]);
        assert_eq!(take_frame(&mut unread), Ok(None));
        let mut unread = BytesMut::from(&b"HTTP/1.1"[..]);
        assert!(take_frame(&mut unread).unwrap_err().contains("48"));
    }
}
