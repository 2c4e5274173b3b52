//! Per-CPU counters. Only the data path writes them; userspace sums over CPUs.

use super::VERDICTS;

/// Traffic of one real server in one service, in `COUNTERS` (per CPU), by the real server's index.
/// A service's traffic is the sum over its real servers and what userspace keeps of retired ones.
/// Bytes are those of IP packets, headers included, as IPVS counts them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets towards the real server.
    pub packets_in: u64,
    /// Bytes towards the real server.
    pub bytes_in: u64,
    /// Packets towards clients (0 in DR: replies do not pass medlb).
    pub packets_out: u64,
    /// Bytes towards clients.
    pub bytes_out: u64,
    /// Connections begun: TCP flows at their first SYN, UDP flows at their first datagram.
    pub connections: u64,
}

/// Packets of one service that were not transmitted, in `SERVICE_DROPS` (per CPU), by
/// [`super::Verdict`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceDrops {
    /// Packets, indexed by verdict.
    pub by_verdict: [u64; VERDICTS],
}
