//! Loads the object, or adopts what an earlier daemon has pinned, and attaches.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context as _, bail};
use aya::maps::{Array, MapData};
use aya::programs::{ProgramError, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_common::abi::{ABI_VERSION, Counters, Meta};
use lb_common::policy::clock;

use super::attach::{self, Attachment, Balancer};
use super::check::Checks;
use super::log;
use super::maps::{self, Maps};
use super::openings;
use super::pins::Pins;
use super::preflight;
use crate::config::model::Config;

/// The eBPF object; empty when medlb was built without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/medlb.bpf.o"));

/// How often loading is tried again, as libbpf does.
const TRIES: u32 = 4;

/// How to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Let tests add to the data path's clock (`META.test_clock_offset`).
    pub test_clock: bool,
}

/// A loaded, attached data plane.
pub struct Loaded {
    /// The programs. Dropping them detaches nothing: links are pinned.
    programs: Ebpf,
    /// The maps.
    pub maps: Maps,
    /// Facts about them.
    pub meta: Meta,
    /// They were there already, with their flows and counters.
    pub adopted: bool,
    /// Where the program runs.
    pub attachments: Vec<Attachment>,
    /// Health checks through VIPs; none where the kernel cannot.
    pub checks: Option<Mutex<Checks>>,
}

impl Loaded {
    /// Runs the load balancer on a frame: the action and what became of the frame.
    #[cfg(test)]
    pub fn run(&self, frame: &[u8]) -> (u32, Vec<u8>) {
        let program: &Xdp = self.programs.program("medlb").unwrap().try_into().unwrap();
        let mut out = vec![0; frame.len() + 64];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    /// Now, in ticks, as the data path sees it.
    pub fn now(&self) -> anyhow::Result<u32> {
        let program: &Xdp = self
            .programs
            .program("medlb_clock")
            .context("the eBPF object has no program medlb_clock")?
            .try_into()?;
        let frame = [0u8; 64];
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
        Ok(program.test_run(options).context("cannot run medlb_clock")?.return_value)
    }
}

/// Loads or adopts, attaches, and detaches from interfaces that are not in the file any more.
/// Appends to `notes` what the operator should know. On failure nothing of this run is left.
pub fn open(config: &Config, options: Options, notes: &mut Vec<String>) -> anyhow::Result<Loaded> {
    preflight::kernel(OBJECT)?;
    attach::interfaces_exist(&config.interfaces)?;
    preflight::bpffs(&config.global.pin_dir)?;
    let pins = Pins::new(&config.global.pin_dir);
    let existing = existing(&pins)?;
    if existing.is_none() {
        pins.remove().context("cannot clear away what an interrupted start has left")?;
    }
    let result = load(config, options, &pins, existing, notes);
    if result.is_err() && existing.is_none() {
        // The first error is the one to report.
        let _ = pins.remove();
    }
    result
}

/// The facts about pinned maps, if a start was completed. An error if they are another version's.
fn existing(pins: &Pins) -> anyhow::Result<Option<Meta>> {
    let path = pins.maps.join("META");
    if !path.exists() {
        return Ok(None);
    }
    let incompatible = |found: String| {
        format!(
            "the data plane pinned in {} is of {found}, and this medlb needs layout {ABI_VERSION}: \
             run `medlb teardown` first (connections are lost)",
            pins.root.display()
        )
    };
    let data =
        MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let map: Array<_, Meta> = aya::maps::Map::from_map_data(data)?
        .try_into()
        .with_context(|| incompatible("an unknown layout".into()))?;
    let meta = map.get(&0, 0).with_context(|| incompatible("an unknown layout".into()))?;
    match meta.abi_version {
        0 => Ok(None), // a start that was interrupted before anything was attached
        ABI_VERSION => Ok(Some(meta)),
        other => bail!(incompatible(format!("layout {other}"))),
    }
}

fn load(
    config: &Config,
    options: Options,
    pins: &Pins,
    existing: Option<Meta>,
    notes: &mut Vec<String>,
) -> anyhow::Result<Loaded> {
    pins.create()?;
    let meta = match existing {
        Some(meta) => meta,
        None => fresh_meta()?,
    };
    let mut programs = load_object(config, options, pins, &meta)?;
    make_retired(pins)?;
    let maps = Maps::open(&pins.maps)?;
    if existing.is_none() {
        maps.meta.set(0, &meta).context("cannot write META")?;
    } else if maps.tcp_v4.capacity() != config.global.maximum_flows {
        notes.push(format!(
            "maximum_flows is {} in the file, but the running data plane has room for {}: a new \
             size needs `medlb teardown` and a new start (connections are lost)",
            config.global.maximum_flows,
            maps.tcp_v4.capacity()
        ));
    }
    let clock = program(&mut programs, "medlb_clock")?;
    verify(clock).context("the kernel refuses the program medlb_clock")?;
    let balancer = balancer(&mut programs)?;
    verify(balancer.with_frags).context("the kernel refuses the XDP program")?;
    let attachments = attach::all(balancer, pins, &config.interfaces, notes)?;
    if log::level() != 0
        && let Err(error) = log::follow(&mut programs)
    {
        notes.push(format!("{error:#}"));
    }
    let checks = match Checks::attach(&mut programs, &attachments) {
        Ok(checks) => Some(Mutex::new(checks)),
        Err(error) => {
            notes.push(format!(
                "health checks of dr services go to the real servers' own addresses and do not \
                 notice a VIP that is not bound there: {error:#}"
            ));
            None
        }
    };
    Ok(Loaded { programs, maps, meta, adopted: existing.is_some(), attachments, checks })
}

fn program<'a>(programs: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    let program = programs
        .program_mut(name)
        .with_context(|| format!("the eBPF object has no program {name}"))?;
    Ok(program.try_into()?)
}

fn balancer(programs: &mut Ebpf) -> anyhow::Result<Balancer<'_>> {
    let (mut with_frags, mut linear) = (None, None);
    for (name, program) in programs.programs_mut() {
        match name {
            "medlb" => with_frags = Some(program.try_into()?),
            "medlb_linear" => linear = Some(program.try_into()?),
            _ => {}
        }
    }
    with_frags
        .zip(linear)
        .map(|(with_frags, linear)| Balancer { with_frags, linear })
        .context("the eBPF object has no program medlb or medlb_linear")
}

/// Loads a program. The verifier gives up with EAGAIN when a signal is pending, whatever signal
/// (kernel/bpf/verifier.c, do_check): not the program's fault, so it is asked again.
pub fn verify(program: &mut Xdp) -> Result<(), ProgramError> {
    for _ in 0..TRIES {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) => {}
            result => return result,
        }
    }
    program.load()
}

fn load_object(
    config: &Config,
    options: Options,
    pins: &Pins,
    meta: &Meta,
) -> anyhow::Result<Ebpf> {
    let flows = config.global.maximum_flows;
    let half_open = config.global.maximum_half_open;
    // A mask for the map that there is, should the file have another size by now.
    let buckets = match pinned_size(&pins.maps.join("OPENING_V4")) {
        Some(buckets) => buckets,
        None => openings::buckets(half_open),
    };
    let opening_mask = buckets - 1;
    let udp = (flows / 4).max(65_536);
    let test_clock = options.test_clock as u32;
    let log_level = log::level();
    let mut loader = EbpfLoader::new();
    loader
        .override_global("TICK_SHIFT", &meta.tick_shift, true)
        .override_global("TEST_CLOCK", &test_clock, true)
        .override_global("OPENING_MASK", &opening_mask, true)
        .override_global("AYA_LOG_LEVEL", &log_level, true)
        .map_max_entries("TCP_V4", flows)
        .map_max_entries("TCP_V6", flows)
        .map_max_entries("HALF_V4", half_open)
        .map_max_entries("HALF_V6", half_open)
        .map_max_entries("OPENING_V4", buckets)
        .map_max_entries("OPENING_V6", buckets)
        .map_max_entries("UDP_V4", udp)
        .map_max_entries("UDP_V6", udp);
    for name in maps::NAMES {
        loader.map_pin_path(name, pins.maps.join(name));
    }
    loader.load(OBJECT).context("cannot load the eBPF object")
}

/// How many elements a pinned map has; none: there is no such map.
fn pinned_size(path: &Path) -> Option<u32> {
    MapData::from_pin(path).ok()?.info().ok().map(|info| info.max_entries())
}

/// The map of retired traffic, if it is not there yet.
fn make_retired(pins: &Pins) -> anyhow::Result<()> {
    let path = pins.maps.join(maps::RETIRED);
    if path.exists() {
        return Ok(());
    }
    let map = Array::<MapData, Counters>::create(maps::RETIRED_SIZE, 0)
        .context("cannot make the map of retired traffic")?;
    map.pin(&path).with_context(|| format!("cannot pin {}", path.display()))
}

/// Facts about this machine. A tick is made of jiffies, whose rate only the coarse clock's
/// resolution tells.
fn fresh_meta() -> anyhow::Result<Meta> {
    let resolution = nix::time::clock_getres(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .context("cannot read the resolution of the coarse clock")?;
    let nanoseconds = resolution.tv_nsec().clamp(1, 1_000_000_000) as u64;
    let hz = ((1_000_000_000 + nanoseconds / 2) / nanoseconds) as u32;
    Ok(Meta {
        abi_version: ABI_VERSION,
        tick_shift: clock::tick_shift(hz),
        hz,
        test_clock_offset: 0,
    })
}
