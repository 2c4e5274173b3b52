//! What is paid once: the verifier's work, loading, and memory.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::Instant;

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData};

use crate::plane::Plane;

const FLOWS: u32 = 1 << 20;

/// Figures of the loaded object.
#[derive(Clone, Debug)]
pub struct Costs {
    /// Loading maps and programs, in milliseconds.
    pub load_ms: f64,
    /// Instructions that the verifier looked at.
    pub verified: u32,
    /// Length of the program in eBPF, bytes.
    pub translated: u32,
    /// Length of the program in machine code, bytes.
    pub jited: u32,
    /// Name of a table, bytes for each of its entries, all told.
    pub entries: Vec<(&'static str, f64)>,
}

/// Loads the object with tables for a million flows.
pub fn measure() -> Result<Costs> {
    let started = Instant::now();
    let plane = Plane::load_with(FLOWS, FLOWS, false)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let info = plane.program()?.info()?;
    let mut entries = Vec::new();
    for name in ["TCP_V4", "TCP_V6", "HALF_V4", "UDP_V4", "UDP_V6"] {
        entries.push((name, bytes(plane.map(name)?)? as f64 / f64::from(FLOWS)));
    }
    Ok(Costs {
        load_ms,
        verified: info.verified_instruction_count().unwrap_or(0),
        translated: info.size_translated().unwrap_or(0),
        jited: info.size_jitted(),
        entries,
    })
}

/// What the kernel says that a map takes (`memlock` in fdinfo).
fn bytes(map: &Map) -> Result<u64> {
    let data: &MapData = match map {
        Map::HashMap(data) | Map::LruHashMap(data) => data,
        _ => anyhow::bail!("not a hash map"),
    };
    let path = format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.context("fdinfo without memlock")?.trim().parse().context("memlock is not a number")
}
