//! MAC addresses.

use core::fmt;

use super::Be16;

/// An Ethernet address, in three 16-bit words: what the alignment of an Ethernet header allows to
/// copy at once.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Mac([Be16; 3]);

impl Mac {
    /// Copies another address here, word by word, as [`super::Addr::put`] does.
    #[inline(always)]
    pub fn put(&mut self, from: &Self) {
        let (a, b, c) = (from.0[0], from.0[1], from.0[2]);
        self.0[0] = a;
        self.0[1] = b;
        self.0[2] = c;
    }
}

impl From<[u8; 6]> for Mac {
    fn from(o: [u8; 6]) -> Self {
        Self(
            [[o[0], o[1]], [o[2], o[3]], [o[4], o[5]]]
                .map(|w| Be16::from_raw(u16::from_ne_bytes(w))),
        )
    }
}

impl From<Mac> for [u8; 6] {
    fn from(mac: Mac) -> Self {
        let [a, b, c] = mac.0.map(|w| w.raw().to_ne_bytes());
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = <[u8; 6]>::from(*self);
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
