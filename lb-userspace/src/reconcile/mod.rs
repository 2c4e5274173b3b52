//! Plan (pure difference) and apply (map writes in the safe order).

pub mod adopt;
pub mod apply;
pub mod indices;
pub mod plan;
pub mod record;
mod runs;
pub mod state;
