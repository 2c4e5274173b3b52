//! Health checks through the VIP: how the socket's mark, the program on egress and the XDP program
//! agree.

/// Marks of check sockets (`SO_MARK`): this in the high 16 bits, the service's index in the low.
pub const CHECK_MARK: u32 = 0x6d6c_0000;
/// The bits of [`CHECK_MARK`].
pub const CHECK_MARK_MASK: u32 = 0xffff_0000;

/// The mark for checks of a service, by its index; none for indices beyond 16 bits.
pub const fn check_mark(service: u32) -> Option<u32> {
    if service <= 0xffff { Some(CHECK_MARK | service) } else { None }
}
