//! The only files that import aya: load, attach, pin, typed maps.

pub mod attach;
pub mod link;
pub mod load;
pub mod maps;
pub mod pins;
mod preflight;
mod sys;
pub mod table;
