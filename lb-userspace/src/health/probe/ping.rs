//! `ping`: ICMP and ICMPv6 echo. One reply with our id, sequence number and payload passes.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::icmp::{self, Echo};
use super::{Exchange, Finding, Verdict, words};

/// The only phase of a ping.
pub const PHASE: &str = "echo";

/// Sends up to `count` requests, evenly over the time-out, until one is answered.
pub async fn check(exchange: &Exchange<'_>, count: u32) -> Verdict {
    let fail = |detail: String| Finding::fail(PHASE, detail);
    let count = count.clamp(1, u32::from(u16::MAX));
    let ip = exchange.request.rip;
    let socket = Pinger::open(exchange).map_err(|e| fail(open_words(&e)))?;
    let mut echo =
        Echo { id: fastrand::u16(..), sequence: 0, payload: fastrand::u128(..).to_be_bytes() };
    let mut trouble = None;
    for sent in 0..count {
        let started = Instant::now();
        echo.sequence = u16::try_from(sent).unwrap_or(u16::MAX);
        let slot_end = started + (exchange.deadline - started) / (count - sent);
        let attempt = async {
            socket.send(&echo).await?;
            socket.receive(&echo).await
        };
        match timeout_at(slot_end, attempt).await {
            Ok(Ok(())) => {
                let took = started.elapsed().as_secs_f64() * 1000.0;
                return Ok(Finding::pass(PHASE, format!("echo reply from {ip} in {took:.1} ms")));
            }
            Ok(Err(error)) => {
                trouble = Some(words::io_error(&error));
                // A rejection is an answer; the next request still gets its own slot.
                if sent + 1 < count {
                    tokio::time::sleep_until(slot_end).await;
                }
            }
            Err(_) => {}
        }
    }
    let requests = if count == 1 { "1 request".into() } else { format!("{count} requests") };
    let silence = || format!("no echo reply from {ip} to {requests} {}", exchange.within());
    Err(fail(trouble.unwrap_or_else(silence)))
}

fn open_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "not allowed to ping: medlb needs CAP_NET_RAW, or net.ipv4.ping_group_range".into()
        }
        _ => words::io_error(error),
    }
}

/// A socket that is connected to one server, so that the kernel sorts out everybody else's replies.
struct Pinger {
    fd: AsyncFd<Socket>,
    /// Raw: we fill in the id ourselves and see IPv4 headers.
    raw: bool,
    v6: bool,
}

impl Pinger {
    fn open(exchange: &Exchange<'_>) -> io::Result<Self> {
        let request = exchange.request;
        let v6 = request.rip.is_ipv6();
        let (domain, protocol) = match request.rip {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
            Ok(socket) => (socket, false),
            Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, true),
        };
        socket.set_nonblocking(true)?;
        request.dialer.mark(SockRef::from(&socket))?;
        if let Some(source) = request.dialer.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect(&SocketAddr::new(request.rip, 0).into())?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: the Socket owns its descriptor and closes it only when it is dropped, which is
        // after AsyncFd has deregistered it.
        let fd = unsafe { AsyncFd::register_with_interest(socket, interest) }?;
        Ok(Pinger { fd, raw, v6 })
    }

    async fn send(&self, echo: &Echo) -> io::Result<()> {
        let bytes = icmp::request(echo, self.v6);
        self.fd.async_io(Interest::WRITABLE, |socket| socket.send(&bytes)).await.map(drop)
    }

    /// Waits for the reply to `echo`; anything else that arrives is passed over.
    async fn receive(&self, echo: &Echo) -> io::Result<()> {
        loop {
            let mut buffer = [0; 256];
            let take = |mut socket: &Socket| socket.read(&mut buffer);
            let n = self.fd.async_io(Interest::READABLE, take).await?;
            let packet = &buffer[..n];
            let message = if self.raw && !self.v6 { icmp::strip_ipv4(packet) } else { packet };
            // A datagram socket's id is the kernel's, which has matched it already.
            let id = self.raw.then_some(echo.id);
            if icmp::is_reply(message, echo, id, self.v6) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check as make, probe, request};
    use super::super::{Request, run};
    use crate::config::model::CheckKind;
    use crate::health::ProbeResult::{Fail, Pass};
    use std::time::{Duration, Instant};

    /// Whether this machine lets us ping; where not, that is what the check has to say.
    async fn allowed() -> bool {
        if super::Pinger::open(&super::Exchange {
            request: &request(0),
            deadline: tokio::time::Instant::now(),
            timeout: Duration::ZERO,
        })
        .is_ok()
        {
            return true;
        }
        assert!(!nix::unistd::Uid::effective().is_root());
        let outcome = probe(CheckKind::Ping { count: 1 }, 0).await;
        assert_eq!((outcome.result, outcome.phase), (Fail, "echo"), "{outcome:?}");
        assert!(outcome.detail.contains("CAP_NET_RAW"), "{outcome:?}");
        false
    }

    #[tokio::test]
    async fn loopback_answers_over_ipv4_and_ipv6() {
        if !allowed().await {
            return;
        }
        let outcome = probe(CheckKind::Ping { count: 3 }, 0).await;
        assert_eq!((outcome.result, outcome.phase), (Pass, "echo"), "{outcome:?}");
        let v6 = Request { rip: "::1".parse().unwrap(), ..request(0) };
        let outcome = run(&v6, &make(CheckKind::Ping { count: 1 }, 2000)).await;
        assert_eq!((outcome.result, outcome.phase), (Pass, "echo"), "{outcome:?}");
    }

    #[tokio::test]
    async fn many_pings_at_once_do_not_take_each_others_replies() {
        if !allowed().await {
            return;
        }
        let all = (0..100).map(|_| probe(CheckKind::Ping { count: 1 }, 0));
        for outcome in futures_util::future::join_all(all).await {
            assert_eq!(outcome.result, Pass, "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn silence_fails_at_the_time_out() {
        let started = Instant::now();
        // 240.0.0.0/4 is reserved; nothing answers from there.
        let silent = Request { rip: "240.0.0.1".parse().unwrap(), ..request(0) };
        let outcome = run(&silent, &make(CheckKind::Ping { count: 2 }, 400)).await;
        assert_eq!((outcome.result, outcome.phase), (Fail, "echo"), "{outcome:?}");
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}
