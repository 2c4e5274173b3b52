//! `connect`: the TCP connection opens, and is neither refused nor reset within a short hold.

use std::time::Duration;

use tokio::time::Instant;

use super::stream::Held;
use super::{Exchange, Finding, Verdict, words};

/// How long the connection is held to see whether it lasts.
pub const HOLD: Duration = Duration::from_millis(50);

/// Connects, holds, closes with FIN.
pub async fn check(exchange: &Exchange<'_>) -> Verdict {
    let started = Instant::now();
    let mut stream = exchange.open(None, "").await?;
    let opened = started.elapsed().as_secs_f64() * 1000.0;
    let finding = match stream.hold((Instant::now() + HOLD).min(exchange.deadline)).await {
        Held::Quiet | Held::Spoke => {
            Ok(Finding::pass("connect", format!("connected in {opened:.2} ms")))
        }
        Held::Eof => Ok(Finding::pass(
            "connect",
            format!("connected in {opened:.2} ms; the server closed at once"),
        )),
        Held::Broken(error) => Err(Finding::fail(
            "connect",
            format!("{} as soon as it was open", words::io_error(&error)),
        )),
    };
    stream.close().await;
    finding
}
