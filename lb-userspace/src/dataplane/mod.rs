//! The only files that import aya: load, attach, pin, typed maps. The rest of the daemon calls
//! [`DataPlane`].

mod attach;
mod check;
pub mod link;
mod load;
pub mod maps;
mod pins;
mod plane;
mod preflight;
mod stats;
mod sweeper;
mod sys;
pub mod table;

pub use attach::Attachment;
pub use load::Options;
pub use plane::{ApplyReport, DataPlane, SweepReport, teardown};
pub use stats::{Connection, PersistenceEntry, RealStats, ServiceStats, StatsSnapshot};

#[cfg(test)]
mod tests;
