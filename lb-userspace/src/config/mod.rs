//! The configuration file: `raw` is its shape in YAML, `model` what it means once it is known to
//! be right.

pub mod model;
