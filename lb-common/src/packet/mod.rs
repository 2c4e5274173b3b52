//! Header views, checksums and the rewrites, as pure functions of headers and values.
//!
//! Nothing here knows where a header lies or how it was found; `lb-ebpf/src/at.rs` does.

pub mod checksum;
pub mod headers;
pub mod icmp;
pub mod reset;
pub mod rewrite;
