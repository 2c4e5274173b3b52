//! What the root tests share: `plane` runs the loaded program over single packets; `lab` builds
//! networks of namespaces and runs medlb in them.

pub mod lab;
pub mod plane;
