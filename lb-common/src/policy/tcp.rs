//! What medlb believes of a TCP connection from the flags that pass by. In DR it sees the client's
//! side only.

use crate::abi::Service;
use crate::packet::headers::tcp_flags::{FIN, RST};

/// In [`crate::abi::Flow::state`]. Numbers, because map values have no invalid bit patterns.
pub mod state {
    /// Half-open, and UDP.
    pub const OPENING: u8 = 0;
    /// The client has acknowledged.
    pub const ESTABLISHED: u8 = 1;
    /// The client has sent FIN.
    pub const CLIENT_CLOSED: u8 = 2;
    /// The real server has sent FIN.
    pub const SERVER_CLOSED: u8 = 3;
    /// Both have.
    pub const CLOSED: u8 = 4;
    /// One of them, or medlb itself, has sent RST.
    pub const RESET: u8 = 5;
}

/// Who sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The client.
    Client,
    /// The real server.
    Server,
}

/// The state after a segment with `flags` from `sender`.
#[inline(always)]
pub const fn next(current: u8, sender: Sender, flags: u8) -> u8 {
    if flags & RST != 0 {
        return state::RESET;
    }
    if flags & FIN == 0 {
        return current;
    }
    match (current, sender) {
        (state::RESET, _) => state::RESET,
        (state::SERVER_CLOSED | state::CLOSED, Sender::Client)
        | (state::CLIENT_CLOSED | state::CLOSED, Sender::Server) => state::CLOSED,
        (_, Sender::Client) => state::CLIENT_CLOSED,
        (_, Sender::Server) => state::SERVER_CLOSED,
    }
}

/// Whether a connection counts as active: for `wlc`, for limits, for the operator.
#[inline(always)]
pub const fn is_active(current: u8) -> bool {
    current == state::ESTABLISHED
}

/// Idle time after which a TCP flow in this state expires, in ticks.
#[inline(always)]
pub const fn timeout(current: u8, service: &Service) -> u32 {
    match current {
        state::ESTABLISHED => service.idle,
        state::OPENING => service.half_open,
        _ => service.closing,
    }
}

#[cfg(test)]
mod tests {
    use super::state::*;
    use super::*;

    #[test]
    fn a_connection_closes_from_either_side_and_rst_wins() {
        assert_eq!(next(ESTABLISHED, Sender::Client, FIN), CLIENT_CLOSED);
        assert_eq!(next(CLIENT_CLOSED, Sender::Client, FIN), CLIENT_CLOSED);
        assert_eq!(next(CLIENT_CLOSED, Sender::Server, FIN), CLOSED);
        assert_eq!(next(SERVER_CLOSED, Sender::Client, FIN), CLOSED);
        assert_eq!(next(CLOSED, Sender::Server, FIN), CLOSED);
        for s in [OPENING, ESTABLISHED, CLIENT_CLOSED, SERVER_CLOSED, CLOSED, RESET] {
            assert_eq!(next(s, Sender::Server, RST | FIN), RESET);
            assert_eq!(next(s, Sender::Client, 16), s);
        }
    }
}
