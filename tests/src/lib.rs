//! What the root tests share: `plane` runs the loaded program over single packets, `bench` measures
//! it; `lab` builds networks of namespaces and runs medlb in them.

pub mod bench;
pub mod lab;
pub mod plane;
