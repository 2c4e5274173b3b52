//! The control socket: what is said over it ([`protocol`], [`model`]), who listens ([`server`])
//! and who asks ([`client`]).

pub mod client;
pub mod model;
pub mod names;
pub mod protocol;
pub mod server;
