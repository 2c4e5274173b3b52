//! One file for each step of the pipeline.

pub mod check;
pub mod cold;
pub mod established;
pub mod forward;
pub mod fragment;
pub mod half_open;
pub mod icmp;
pub mod open;
pub mod opening;
pub mod outbound;
pub mod parse;
pub mod record;
pub mod refuse;
pub mod select;
pub mod service;
pub mod transmit;
pub mod vlan;
