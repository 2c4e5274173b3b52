//! Decisions: selection, TCP state, time.

pub mod clock;
