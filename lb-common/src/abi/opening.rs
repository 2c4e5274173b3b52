//! Connections of DR services that have not opened yet: buckets of an array, because a kernel's
//! LRU table takes five times as long to give up its oldest entry (docs/performance.md).

use super::FlowKey;

/// Places in a [`Bucket`].
pub const PLACES: usize = 5;

/// How many half-open connections there are to a bucket when there are as many as the
/// configuration says. Less than half of the places, so that few have to make way before that: of
/// those for which as many SYNs come between SYN and ACK, one in twenty.
pub const PER_BUCKET: u32 = 2;

/// One connection, in the client's direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening<A> {
    /// Addresses and ports of the client's packets.
    pub key: FlowKey<A>,
    /// The real server's index below bit 24, `policy::tcp::State` plus one above it; 0: no
    /// connection.
    pub server: u32,
    /// When the connection began, in ticks.
    pub created: u32,
    /// When a packet was last seen, in ticks.
    pub last_seen: u32,
}

/// In `OPENING_V4`/`OPENING_V6`, by `policy::opening::hash`. Written by the data path alone, which
/// holds the lock while it reads or writes keys and servers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket<A> {
    /// Bit 0: held. Above it: which of several equally old connections makes way next.
    pub lock: u64,
    /// In no order.
    pub places: [Opening<A>; PLACES],
}

impl<A> Opening<A> {
    /// [`Opening::server`] of a connection to a real server, in a state.
    #[inline(always)]
    pub const fn server(real: u32, state: u8) -> u32 {
        (state as u32 + 1) << 24 | real & 0xff_ffff
    }

    /// The real server and the state; `None`: no connection.
    #[inline(always)]
    pub const fn real_and_state(server: u32) -> Option<(u32, u8)> {
        match server >> 24 {
            0 => None,
            state => Some((server & 0xff_ffff, state as u8 - 1)),
        }
    }
}
