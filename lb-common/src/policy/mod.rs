//! Decisions: selection, TCP state, time. Time is an argument.

pub mod clock;
pub mod select;
pub mod tcp;
