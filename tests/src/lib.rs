//! What the root tests share: `plane` runs the loaded program over single packets.

pub mod plane;
