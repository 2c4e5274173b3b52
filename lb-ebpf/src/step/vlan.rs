//! VLAN tags: taken off before the pipeline, put on again after it, so that no other step knows of
//! them. 802.1Q, and 802.1ad or a second 802.1Q outside of it.

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_head};
use lb_common::{
    abi::{Be16, Tags},
    packet::headers::{ETH_QINQ, ETH_VLAN, EthHdr, VlanTag},
};

use crate::at::Frame;

/// The tags of a frame as they were, to be put back exactly.
#[derive(Clone, Copy)]
pub struct Taken {
    /// EtherType and tag control information, outer tag first; EtherType 0: no such tag.
    pub outer: (Be16, Be16),
    /// The same of the second tag.
    pub inner: (Be16, Be16),
}

const NONE: (Be16, Be16) = (Be16::from_raw(0), Be16::from_raw(0));

/// Whether this EtherType announces a tag.
#[inline(always)]
pub fn is_tag(ethertype: Be16) -> bool {
    ethertype == ETH_VLAN || ethertype == ETH_QINQ
}

/// Whether the frame has a tag.
#[inline(always)]
pub fn has_tag(ctx: *mut xdp_md) -> bool {
    Frame::new(ctx).at::<EthHdr>(0).is_some_and(|eth| is_tag(eth.ethertype))
}

/// Takes up to two tags off. Not inlined: tagged frames only.
#[inline(never)]
pub fn take(ctx: *mut xdp_md, taken: &mut Taken) {
    let Some(outer) = take_one(ctx) else { return };
    taken.outer = outer;
    let Some(eth) = Frame::new(ctx).at::<EthHdr>(0) else { return };
    if is_tag(eth.ethertype)
        && let Some(inner) = take_one(ctx)
    {
        taken.inner = inner;
    }
}

#[inline(always)]
fn take_one(ctx: *mut xdp_md) -> Option<(Be16, Be16)> {
    let frame = Frame::new(ctx);
    let eth: &mut EthHdr = frame.at(0)?;
    let tag: &mut VlanTag = frame.at(size_of::<EthHdr>())?;
    let taken = (eth.ethertype, tag.tci);
    let moved = EthHdr { ethertype: tag.ethertype, ..*eth };
    // SAFETY: the helper checks the bounds; pointers are derived again below.
    if unsafe { bpf_xdp_adjust_head(ctx, size_of::<VlanTag>() as i32) } != 0 {
        return None;
    }
    let eth: &mut EthHdr = Frame::new(ctx).at(0)?;
    *eth = moved;
    Some(taken)
}

/// Puts the tags back as they were.
#[inline(never)]
pub fn put_back(ctx: *mut xdp_md, taken: &Taken) -> bool {
    (taken.inner == NONE || put_one(ctx, taken.inner)) && put_one(ctx, taken.outer)
}

/// Puts on the tags that a way out asks for.
#[inline(never)]
pub fn put(ctx: *mut xdp_md, tags: u32) -> bool {
    let tags = Tags::from_bits(tags);
    let inner = put_one(ctx, (ETH_VLAN, Be16::new(tags.inner())));
    inner && (tags.outer() == 0 || put_one(ctx, (ETH_QINQ, Be16::new(tags.outer()))))
}

#[inline(always)]
fn put_one(ctx: *mut xdp_md, (ethertype, tci): (Be16, Be16)) -> bool {
    let Some(eth) = Frame::new(ctx).at::<EthHdr>(0) else { return false };
    let old = *eth;
    // SAFETY: the helper checks the bounds; pointers are derived again below.
    if unsafe { bpf_xdp_adjust_head(ctx, -(size_of::<VlanTag>() as i32)) } != 0 {
        return false;
    }
    let frame = Frame::new(ctx);
    let (Some(eth), Some(tag)) = (frame.at::<EthHdr>(0), frame.at::<VlanTag>(size_of::<EthHdr>()))
    else {
        return false;
    };
    *eth = EthHdr { ethertype, ..old };
    *tag = VlanTag { tci, ethertype: old.ethertype };
    true
}

impl Taken {
    /// Of a frame without tags.
    pub const NONE: Self = Self { outer: NONE, inner: NONE };

    /// Whether there was a tag; its identifier may be 0 (a priority tag).
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.outer.0 != NONE.0
    }

    /// The identifiers.
    #[inline(always)]
    pub fn tags(&self) -> Tags {
        if self.outer == NONE {
            Tags::new(0, 0)
        } else if self.inner == NONE {
            Tags::new(0, self.outer.1.get() & 0xfff)
        } else {
            Tags::new(self.outer.1.get() & 0xfff, self.inner.1.get() & 0xfff)
        }
    }
}
