//! `http` and `https`: one request on a connection of its own, through hyper; status and body as
//! the operator expects them.

use std::future::poll_fn;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request as HttpRequest, Response, header};
use hyper_util::rt::TokioIo;
use regex::bytes::Regex;
use tokio::time::timeout_at;

use super::{Exchange, Finding, Verdict, words};
use crate::config::model::Tls;

/// How much of the body the expression is matched against.
const BODY: usize = 64 * 1024;

/// What to ask and what to expect.
pub struct Http<'a> {
    /// For `https`.
    pub tls: Option<&'a Tls>,
    /// Request target.
    pub path: &'a str,
    /// GET, HEAD, …
    pub method: &'a str,
    /// Host header and SNI.
    pub host: Option<&'a str>,
    /// Accepted status codes.
    pub status: &'a [RangeInclusive<u16>],
    /// What the body must match.
    pub body: Option<&'a str>,
}

/// Connects, asks, judges, closes.
pub async fn check(exchange: &Exchange<'_>, http: &Http<'_>) -> Verdict {
    let host = http.host.map_or_else(|| vip_host(exchange, http.tls.is_some()), str::to_owned);
    let (request, expression) = prepare(http, &host)?;
    let stream = exchange.open(http.tls, host_name(&host)).await?;
    let opened = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, mut connection) =
        opened.map_err(|e| Finding::fail("request", format!("HTTP: {e}")))?;
    let judged = async {
        let response = sender.send_request(request).await.map_err(|e| broken(exchange, &e))?;
        judge(exchange, http, expression.as_ref(), response).await
    };
    // hyper moves bytes only while its connection is polled; once there is a verdict the stream is
    // taken back, because hyper would close it with data unread.
    let late = || Finding::fail("response", format!("no HTTP answer {}", exchange.within()));
    let verdict = {
        let mut judged = std::pin::pin!(judged);
        let both = async {
            tokio::select! {
                biased;
                verdict = &mut judged => return verdict,
                _ = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {}
            }
            // The server closed after its answer; what hyper has read is still to be judged.
            judged.await
        };
        timeout_at(exchange.deadline, both).await.unwrap_or_else(|_| Err(late()))
    };
    drop(sender);
    connection.into_parts().io.into_inner().close().await;
    verdict
}

fn prepare(
    http: &Http<'_>,
    host: &str,
) -> Result<(HttpRequest<Empty<Bytes>>, Option<Regex>), Finding> {
    let fail = |detail: String| Finding::fail("config", detail);
    let request = HttpRequest::builder()
        .method(http.method)
        .uri(http.path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "medlb-health-check")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|e| fail(format!("method, path or host: {e}")))?;
    let expression = http.body.map(Regex::new).transpose();
    Ok((request, expression.map_err(|e| fail(format!("body: {e}")))?))
}

async fn judge(
    exchange: &Exchange<'_>,
    http: &Http<'_>,
    expression: Option<&Regex>,
    response: Response<Incoming>,
) -> Verdict {
    let status = response.status();
    let code = status.as_u16();
    let said = format!("{code} {}", status.canonical_reason().unwrap_or_default());
    let said = said.trim_end();
    if !http.status.iter().any(|range| range.contains(&code)) {
        let wanted = http.status.iter().map(range_words).collect::<Vec<_>>().join(", ");
        return Err(Finding::fail("status", format!("HTTP {said}, expected {wanted}")));
    }
    let Some(expression) = expression else {
        return Ok(Finding::pass("status", format!("HTTP {said}")));
    };
    let mut body = response.into_body();
    let mut read = Vec::new();
    while read.len() < BODY {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => read.extend(frame.into_data().unwrap_or_default()),
            Some(Err(error)) => return Err(broken(exchange, &error)),
        }
    }
    read.truncate(BODY);
    if expression.is_match(&read) {
        return Ok(Finding::pass("body", format!("HTTP {said}, body matches")));
    }
    let detail = format!("HTTP {said}, but the body does not match \"{expression}\"");
    Err(Finding::fail("body", detail))
}

fn range_words(range: &RangeInclusive<u16>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{}-{}", range.start(), range.end())
    }
}

/// Words for what hyper could not do.
fn broken(exchange: &Exchange<'_>, error: &hyper::Error) -> Finding {
    let port = exchange.request.port;
    let inner = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    let detail = match inner {
        Some(io) => format!("{} before the answer was complete", words::io_error(io)),
        None if error.is_parse() => format!("what answers on port {port} is not HTTP/1 ({error})"),
        None if error.is_incomplete_message() || error.is_canceled() => {
            "the server closed the connection before its answer was complete".into()
        }
        None => format!("HTTP: {error}"),
    };
    Finding::fail("response", detail)
}

/// What a client of the service would send.
fn vip_host(exchange: &Exchange<'_>, tls: bool) -> String {
    let (vip, port) = (exchange.request.vip, exchange.request.vip_port);
    let host = match vip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let usual = if tls { 443 } else { 80 };
    if port == usual || port == 0 { host } else { format!("{host}:{port}") }
}

/// A Host header without its port and brackets: what a certificate has to be valid for.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_the_host_without_its_port() {
        for (host, name) in [
            ("pacs.example", "pacs.example"),
            ("pacs.example:8443", "pacs.example"),
            ("10.0.0.1:443", "10.0.0.1"),
            ("[fd00::1]:443", "fd00::1"),
            ("[fd00::1]", "fd00::1"),
            ("fd00::1", "fd00::1"),
        ] {
            assert_eq!(host_name(host), name);
        }
    }
}
