//! One file for each step of the pipeline.

pub mod established;
pub mod forward;
pub mod open_tcp;
pub mod open_udp;
pub mod parse;
pub mod record;
pub mod refuse;
pub mod select;
pub mod service;
pub mod transmit;
