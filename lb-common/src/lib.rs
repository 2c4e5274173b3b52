//! The contract between medlb's data path (XDP) and its control path (userspace).
//!
//! `abi` holds the layouts of map keys and values, `packet` the header views and rewrites, `policy`
//! the decisions: which server, which TCP state, when a flow expires. Everything is a pure function
//! of its arguments: no clock, no socket, no map. It runs under plain `cargo test`, Miri and a
//! fuzzer. What needs a helper, a map or a system call does not belong here.
#![no_std]

#[cfg(any(test, feature = "user"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod abi;
pub mod packet;
pub mod policy;
