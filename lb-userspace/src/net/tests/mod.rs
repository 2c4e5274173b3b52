//! Behaviour against a real kernel, in network namespaces. Needs root: without it these tests fail.

mod harness;
mod local;
mod paths;
mod resync;
mod vips;
