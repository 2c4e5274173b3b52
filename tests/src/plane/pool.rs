//! Loaded objects that are used again, their maps empty as at first. Only where `MEDLB_POOL` is set:
//! under emulation (`cargo xtask verify`) the verifier needs seconds for what it does at once
//! elsewhere.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya::util::nr_cpus;

/// Sizes and clock of a loaded object.
pub type Key = (u32, u32, u32);

static IDLE: Mutex<Vec<(Key, Ebpf)>> = Mutex::new(Vec::new());

/// Of a large array, fixtures write to the beginning only.
const WRITTEN: u32 = 1024;

/// As in `enum bpf_cmd` (include/uapi/linux/bpf.h).
const UPDATE: libc::c_long = 2;
const DELETE: libc::c_long = 3;
const NEXT_KEY: libc::c_long = 4;

/// One that nobody uses.
pub fn take(key: Key) -> Option<Ebpf> {
    let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = idle.iter().position(|(of, _)| *of == key)?;
    Some(idle.swap_remove(place).1)
}

/// Nobody uses it any more.
pub fn give(key: Key, ebpf: Ebpf) {
    if std::env::var_os("MEDLB_POOL").is_none() || std::thread::panicking() {
        return;
    }
    clear(&ebpf).expect("what cannot be emptied would spoil the next test");
    IDLE.lock().unwrap_or_else(PoisonError::into_inner).push((key, ebpf));
}

fn clear(ebpf: &Ebpf) -> Result<()> {
    // Constants, and the log that is off.
    for (name, map) in ebpf.maps().filter(|(name, _)| !name.starts_with('.')) {
        match map {
            Map::Array(data) => zero(data, 1),
            Map::PerCpuArray(data) => {
                let cpus = nr_cpus()
                    .map_err(|(file, error)| io::Error::other(format!("{file}: {error}")))?;
                zero(data, cpus)
            }
            Map::HashMap(data) | Map::LruHashMap(data) | Map::DevMap(data) => empty(data),
            Map::RingBuf(_) => Ok(()),
            _ => bail!("map {name} is of a kind that nobody empties here"),
        }
        .with_context(|| format!("map {name}"))?;
    }
    Ok(())
}

/// Writes zeros to an array, or to the part of it that fixtures use.
fn zero(map: &MapData, cpus: usize) -> Result<()> {
    let info = map.info()?;
    let value = vec![0u8; (info.value_size() as usize).next_multiple_of(8) * cpus];
    let entries = if info.max_entries() > 4 * WRITTEN { WRITTEN } else { info.max_entries() };
    for index in 0..entries {
        element(map, UPDATE, &index.to_ne_bytes(), Some(value.as_ptr() as u64))?;
    }
    Ok(())
}

/// Removes every element.
fn empty(map: &MapData) -> Result<()> {
    let mut key = vec![0u8; map.info()?.key_size() as usize];
    let mut from: Option<Vec<u8>> = None;
    loop {
        let next = key.as_mut_ptr() as u64;
        match element(map, NEXT_KEY, from.as_deref().unwrap_or_default(), Some(next)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // An array's elements stay, empty: go on behind them. A hash's go, and the next is the first.
        match element(map, DELETE, &key, None) {
            Ok(()) => from = info_is_array(map)?.then(|| key.clone()),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => from = Some(key.clone()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether keys are indices, all of which are always there.
fn info_is_array(map: &MapData) -> Result<bool> {
    Ok(map.info()?.map_type()? == aya::maps::MapType::DevMap)
}

/// The part of `union bpf_attr` for one element.
#[repr(C)]
struct Element {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A command about one element; an empty key is none.
fn element(map: &MapData, command: libc::c_long, key: &[u8], value: Option<u64>) -> io::Result<()> {
    let mut attr = Element {
        map_fd: map.fd().as_fd().as_raw_fd() as u32,
        _pad: 0,
        key: if key.is_empty() { 0 } else { key.as_ptr() as u64 },
        value: value.unwrap_or(0),
        flags: 0,
    };
    // SAFETY: the kernel's layout of this command's part of the union, with its size; key and value
    // are buffers of the sizes that the kernel derives from the map, and outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<Element>() as u32)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
