//! What the root tests share.
