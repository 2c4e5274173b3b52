//! The only files that import aya: load, attach, pin, typed maps. The rest of the daemon calls
//! [`DataPlane`].

mod attach;
mod check;
pub mod link;
mod load;
mod log;
pub mod maps;
pub mod openings;
mod pins;
mod plane;
mod preflight;
mod stats;
mod sweeper;
mod sys;
pub mod table;

pub use plane::{DataPlane, teardown};
pub use preflight::privileged;
pub use stats::{Connection, PersistenceEntry, StatsSnapshot};

#[cfg(test)]
mod tests;
