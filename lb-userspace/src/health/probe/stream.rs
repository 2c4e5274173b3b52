//! A probe's connection, plain or TLS, and how to leave it: with FIN, never with RST.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;

/// How long a probe waits, after its own FIN, for the peer's.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// How much of what the peer still sends is read away while waiting.
const CLOSE_DRAIN: usize = 1 << 20;

/// A connection.
pub enum Stream {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What the peer did while its connection was held open.
#[derive(Debug)]
pub enum Held {
    /// Nothing.
    Quiet,
    /// It sent something, which was read away.
    Spoke,
    /// It closed its side.
    Eof,
    /// It reset the connection, or the connection broke.
    Broken(io::Error),
}

impl Stream {
    /// Holds the connection open until `until`, to see whether the peer does too. Ends early when
    /// the peer closes or breaks the connection.
    pub async fn hold(&mut self, until: Instant) -> Held {
        let mut seen = Held::Quiet;
        let mut scratch = [0u8; 2048];
        loop {
            match timeout_at(until, self.read(&mut scratch)).await {
                Err(_) => return seen,
                Ok(Ok(0)) => return Held::Eof,
                Ok(Ok(_)) => seen = Held::Spoke,
                Ok(Err(error)) => return Held::Broken(error),
            }
        }
    }

    /// Closes with FIN (TLS: close_notify before it). What the peer still sends is read until its
    /// own FIN: closing a socket with unread data would make the kernel send RST.
    pub async fn close(mut self) {
        let leave = async {
            if self.shutdown().await.is_err() {
                return;
            }
            let mut scratch = [0u8; 4096];
            let mut left = CLOSE_DRAIN;
            while let Ok(n @ 1..) = self.tcp().read(&mut scratch).await {
                left = left.saturating_sub(n);
                if left == 0 {
                    return;
                }
            }
        };
        // A peer that does not close within this time loses nothing: our FIN is on its way.
        timeout(CLOSE_WAIT, leave).await.ok();
    }

    fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_mut().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let read = match stream {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        };
        if read.is_pending() {
            // Many a PACS sends an answer in two writes and lets Nagle hold back the second until
            // the first is acknowledged: acknowledge at once, or every check takes 40 ms longer.
            SockRef::from(&*stream.tcp()).set_tcp_quickack(true).ok();
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
