//! VLAN tags of a frame.

/// Up to two VLAN identifiers in three bytes: the inner one in the low 12 bits, the outer one
/// (802.1ad, or a second 802.1Q) in the high 12; 0: no such tag. Priorities are not kept.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags([u8; 3]);

impl Tags {
    /// From identifiers, 0: no such tag.
    #[inline(always)]
    pub const fn new(outer: u16, inner: u16) -> Self {
        Self::from_bits((outer as u32 & 0xfff) << 12 | inner as u32 & 0xfff)
    }

    /// From the form of [`Tags::bits`].
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self([bits as u8, (bits >> 8) as u8, (bits >> 16) as u8])
    }

    /// All in one number, 0: untagged.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.0[0] as u32 | (self.0[1] as u32) << 8 | (self.0[2] as u32) << 16
    }

    /// The outer identifier of a frame with two tags.
    #[inline(always)]
    pub const fn outer(self) -> u16 {
        (self.bits() >> 12) as u16
    }

    /// The identifier of the only tag, or the inner one.
    #[inline(always)]
    pub const fn inner(self) -> u16 {
        (self.bits() & 0xfff) as u16
    }
}
