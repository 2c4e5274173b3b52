//! What became of a packet.

/// Why a packet was not transmitted by rewriting. `Ok` means transmit; a transmitted packet is
/// counted at its real server, everything else under one of these names.
///
/// The numbers are indices into the `VERDICTS` map and into [`super::ServiceDrops`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not for a virtual service nor of one: left as it was.
    NotOurs = 0,
    /// For a VIP, but the kernel's to answer: ping, a port without a service, ARP.
    ToKernel = 1,
    /// For a VIP, with headers that contradict themselves or the frame's length.
    Malformed = 2,
    /// No real server is in rotation and there is no fallback server; a RST or an ICMP error was
    /// not possible or not due.
    NoUsableServer = 3,
    /// A RST went back to the sender because no server can take the connection.
    RefusedReset = 4,
    /// ICMP port unreachable went back to the sender because no server can take the datagram.
    RefusedUnreachable = 5,
    /// A RST went back to the sender because its real server has failed or was taken away.
    ServerDownReset = 6,
    /// The real server is down; the packet could not be answered.
    ServerDown = 7,
    /// The MAC address of the next hop towards the real server or client is not known.
    NeighbourUnknown = 8,
    /// NAT or SNAT: the table of established connections is full.
    FlowTableFull = 9,
    /// SNAT: every port of the range is in use towards this real server.
    SnatPortsExhausted = 10,
    /// TCP that opens no connection and belongs to none; a RST went back.
    NoFlowReset = 11,
    /// NAT or SNAT: the packet's time to live ran out here.
    TtlExpired = 12,
    /// A fragment whose first fragment was not seen.
    FragmentUnmatched = 13,
    /// `bpf_redirect_map` refused the egress interface.
    RedirectFailed = 14,
    /// A reply that is too big for the frame or the checksum could not be mended.
    AdjustFailed = 15,
    /// TCP with RST that belongs to no connection: dropped, a RST is never answered.
    NoFlow = 16,
    /// DR, established table full: forwarded without state by source hash. Transmitted; counted
    /// here as well as at the real server.
    Stateless = 17,
    /// NAT: another connection of the same client has the same addresses and ports towards the
    /// real server; a RST went back.
    FlowConflict = 18,
    /// ICMP "fragmentation needed" or "packet too big" went back to the sender.
    TooBig = 19,
    /// The answer to a health check through the VIP: its source is the real server's again, and
    /// it goes on to the kernel.
    CheckAnswer = 20,
}

/// How many entries [`Verdict`] has room for.
pub const VERDICTS: usize = 32;

/// What the data path does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the kernel's stack, unchanged.
    Pass,
    /// Gone, and counted.
    Drop,
    /// Back out of the interface that it came in by.
    Reflect,
}

impl Verdict {
    /// Every verdict, in the order of its number.
    pub const ALL: [Self; 21] = [
        Self::NotOurs,
        Self::ToKernel,
        Self::Malformed,
        Self::NoUsableServer,
        Self::RefusedReset,
        Self::RefusedUnreachable,
        Self::ServerDownReset,
        Self::ServerDown,
        Self::NeighbourUnknown,
        Self::FlowTableFull,
        Self::SnatPortsExhausted,
        Self::NoFlowReset,
        Self::TtlExpired,
        Self::FragmentUnmatched,
        Self::RedirectFailed,
        Self::AdjustFailed,
        Self::NoFlow,
        Self::Stateless,
        Self::FlowConflict,
        Self::TooBig,
        Self::CheckAnswer,
    ];

    /// The name in `medlb stats --json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotOurs => "not_ours",
            Self::ToKernel => "to_kernel",
            Self::Malformed => "malformed",
            Self::NoUsableServer => "no_usable_server",
            Self::RefusedReset => "refused_reset",
            Self::RefusedUnreachable => "refused_unreachable",
            Self::ServerDownReset => "server_down_reset",
            Self::ServerDown => "server_down",
            Self::NeighbourUnknown => "neighbour_unknown",
            Self::FlowTableFull => "flow_table_full",
            Self::SnatPortsExhausted => "snat_ports_exhausted",
            Self::NoFlowReset => "no_flow_reset",
            Self::TtlExpired => "ttl_expired",
            Self::FragmentUnmatched => "fragment_unmatched",
            Self::RedirectFailed => "redirect_failed",
            Self::AdjustFailed => "adjust_failed",
            Self::NoFlow => "no_flow",
            Self::Stateless => "stateless",
            Self::FlowConflict => "flow_conflict",
            Self::TooBig => "too_big",
            Self::CheckAnswer => "check_answer",
        }
    }

    /// Whether the sender is told with an ICMP or ICMPv6 error.
    #[inline(always)]
    pub const fn explains(self) -> bool {
        matches!(self, Self::RefusedUnreachable | Self::TooBig)
    }

    /// Whether the sender of a TCP segment is told with a RST.
    #[inline(always)]
    pub const fn resets(self) -> bool {
        matches!(
            self,
            Self::RefusedReset | Self::ServerDownReset | Self::NoFlowReset | Self::FlowConflict
        )
    }

    /// What the data path does with the packet. Exhaustive on purpose: a new verdict must choose.
    #[inline(always)]
    pub const fn action(self) -> Action {
        match self {
            Self::NotOurs | Self::ToKernel | Self::CheckAnswer => Action::Pass,
            Self::Malformed
            | Self::NoUsableServer // PASS would let the host itself answer for the VIP.
            | Self::ServerDown
            | Self::NeighbourUnknown
            | Self::FlowTableFull
            | Self::SnatPortsExhausted
            | Self::TtlExpired
            | Self::FragmentUnmatched
            | Self::RedirectFailed
            | Self::AdjustFailed
            | Self::NoFlow
            | Self::Stateless => Action::Drop, // Stateless never arrives here: it is transmitted.
            Self::RefusedReset
            | Self::RefusedUnreachable
            | Self::ServerDownReset
            | Self::NoFlowReset
            | Self::FlowConflict
            | Self::TooBig => Action::Reflect,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions_and_names_are_distinct() {
        for (i, v) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*v as usize, i);
            assert!(Verdict::ALL.iter().filter(|o| o.name() == v.name()).count() == 1);
        }
        assert!(Verdict::ALL.len() <= VERDICTS);
    }
}
