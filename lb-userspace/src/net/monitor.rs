//! The kernel's announcements: links, addresses, neighbours, routes and rules, as they happen.
//! A socket that overflows says so ([`Heard::Lost`]); what to do then is the caller's business.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Context;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt,
};
use tokio::io::unix::AsyncFd;

/// Receive buffer in bytes: room for some ten thousand announcements.
pub const RECEIVE_BUFFER: usize = 8 << 20;
/// The longest datagram that the kernel is expected to send; one longer counts as a loss.
const DATAGRAM: usize = 64 << 10;
/// Bounds [`Monitor::drain`], where announcements come faster than they can be thrown away.
const DRAIN: usize = 1 << 20;
/// Datagrams taken in one go before other work gets its turn.
const BATCH: usize = 256;

/// Numbers of the multicast groups (rtnetlink.h): links, neighbours, then addresses, routes and
/// rules of IPv4 and IPv6.
const GROUPS: [u32; 8] = [1, 3, 5, 7, 8, 9, 11, 19];

/// What came in.
#[derive(Debug)]
pub enum Heard {
    /// In the kernel's order.
    Messages(Vec<RouteNetlinkMessage>),
    /// Announcements were lost: everything has to be asked again.
    Lost,
}

/// A socket that hears announcements from the moment it was opened.
#[derive(Debug)]
pub struct Monitor {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Subscribes, with a receive buffer of that many bytes.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn open(receive_buffer: usize) -> anyhow::Result<Self> {
        let socket = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )
        .context("cannot open a netlink socket")?;
        // Only CAP_NET_ADMIN may pass net.core.rmem_max; without it the smaller buffer has to do.
        if socket::setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer).is_err() {
            socket::setsockopt(&socket, sockopt::RcvBuf, &receive_buffer)
                .context("cannot size the netlink socket's buffer")?;
        }
        let groups = GROUPS.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))
            .context("cannot subscribe to the kernel's network announcements")?;
        // SAFETY: an OwnedFd keeps its descriptor open, and the same, until it is dropped.
        let socket = unsafe { AsyncFd::register(socket) };
        let socket = socket.context("cannot wait for the netlink socket")?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM] })
    }

    /// Throws away everything that waits, so that the kernel announces again: an overflowed socket
    /// gets nothing more until it has been emptied. Call it before asking for everything, or old
    /// news would overwrite the answers.
    pub fn drain(&mut self) {
        let fd = self.socket.get_ref().as_raw_fd();
        for _ in 0..DRAIN {
            match socket::recv(fd, &mut self.buffer, MsgFlags::empty()) {
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(_) => return,
            }
        }
    }

    /// Waits for announcements. Safe to cancel: nothing is taken from the socket before it returns.
    ///
    /// # Errors
    /// The socket cannot be read any more.
    pub async fn next(&mut self) -> io::Result<Heard> {
        loop {
            let mut guard = self.socket.readable().await?;
            let mut messages = Vec::new();
            for _ in 0..BATCH {
                let fd = self.socket.get_ref().as_raw_fd();
                match socket::recv(fd, &mut self.buffer, MsgFlags::MSG_TRUNC) {
                    Ok(length) if length > self.buffer.len() => return Ok(Heard::Lost),
                    Ok(length) => parse(&self.buffer[..length], &mut messages),
                    Err(Errno::EAGAIN) => {
                        guard.clear_ready();
                        break;
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::ENOBUFS) => return Ok(Heard::Lost),
                    Err(other) => return Err(other.into()),
                }
            }
            if !messages.is_empty() {
                return Ok(Heard::Messages(messages));
            }
        }
    }
}

/// Reads the messages of a datagram.
fn parse(datagram: &[u8], into: &mut Vec<RouteNetlinkMessage>) {
    let mut rest = datagram;
    while let Some(length) = rest.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b) as usize) {
        if length < 16 || length > rest.len() {
            return;
        }
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]) {
            Ok(message) => {
                if let NetlinkPayload::InnerMessage(inner) = message.payload {
                    into.push(inner);
                }
            }
            Err(error) => tracing::debug!(%error, "announcement that cannot be read"),
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
}
