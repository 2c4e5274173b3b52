//! The one place that makes a probe's TCP sockets: source address, mark, and words for what goes
//! wrong before a connection is open.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::{Finding, words};

/// How sockets are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dialer {
    /// `SO_MARK` (needs CAP_NET_ADMIN): the data plane sends marked packets through the VIP.
    pub mark: Option<u32>,
    /// Source address; none: the kernel's choice.
    pub source: Option<IpAddr>,
}

impl Dialer {
    /// Opens a TCP connection. `timeout` is for words only.
    ///
    /// # Errors
    /// Refused, unreachable, or no answer by the deadline, in the phase `connect`.
    pub async fn tcp(
        &self,
        to: SocketAddr,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<TcpStream, Finding> {
        if to.port() == 0 {
            let detail = "no port to check: give the check a `port`";
            return Err(Finding::fail("connect", detail));
        }
        let fail = |detail: String| Finding::fail("connect", detail);
        let socket = self.socket(to).map_err(|e| fail(format!("cannot make a socket: {e}")))?;
        match timeout_at(deadline, socket.connect(to)).await {
            Ok(Ok(stream)) => {
                // A probe's messages are small and each waits for an answer.
                stream.set_nodelay(true).ok();
                Ok(stream)
            }
            Ok(Err(error)) => Err(fail(words::io_error(&error))),
            Err(_) => Err(fail(format!("no answer within {}", words::span(timeout)))),
        }
    }

    fn socket(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        self.mark(SockRef::from(&socket))?;
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        Ok(socket)
    }

    /// Puts the mark on a socket.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN.
    pub fn mark(&self, socket: SockRef<'_>) -> io::Result<()> {
        self.mark.map_or(Ok(()), |mark| socket.set_mark(mark))
    }
}
