//! Decisions: selection, TCP state, time. Time is an argument.

pub mod clock;
#[cfg(any(test, feature = "user"))] // tables are built where there is memory for them
pub mod maglev;
pub mod opening;
#[cfg(any(test, feature = "user"))]
pub mod schedule;
pub mod select;
pub mod tcp;
