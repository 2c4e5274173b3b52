//! Sends frames through whatever forwards here and counts instructions: runs in a virtual machine
//! whose clock moves by one nanosecond for each instruction (`cargo xtask verify --count`), inside a
//! network namespace that has both ends, `g0` to send from and `s0` to count at. The frames are
//! made and counted by lb-ebpf/src/bin/wire.rs.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, PerCpuArray};
use aya::programs::xdp::XdpMode;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use clap::Parser;
use nix::net::if_::if_nametoindex;
use nix::time::{ClockId, clock_gettime};

/// The smallest frame of Ethernet, without its check sequence.
const BYTES: usize = 60;
/// A quarter of what a veth ring holds.
const BATCH: u32 = 64;
/// How often a count of which something got lost is made again.
const TRIES: usize = 10;
const SYN: u8 = 0x02;
const PSH_ACK: u8 = 0x18;
/// Clients' addresses count up from here.
const CLIENTS: [u8; 4] = [10, 78, 0, 0];

#[derive(Parser)]
struct Cli {
    /// The object with the programs
    object: PathBuf,
    /// Printed with the counts
    #[arg(long)]
    name: String,
    /// Join connections in the middle, for conntrack: after a SYN it wants the server's answer,
    /// which nobody gives
    #[arg(long)]
    join: bool,
    /// Where packets go
    #[arg(long)]
    address: Ipv4Addr,
    /// TCP port
    #[arg(long, default_value_t = 104)]
    port: u16,
    /// MAC address of the forwarder
    #[arg(long, value_parser = mac)]
    to: [u8; 6],
    /// Interface at which frames are counted
    #[arg(long, default_value = "s0")]
    sink: String,
    /// How many are sent for one count
    #[arg(long, default_value_t = 20_000)]
    frames: u32,
    /// How many counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many connections
    #[arg(long, value_delimiter = ',', default_value = "1,512")]
    flows: Vec<u32>,
}

/// What lb-ebpf/src/bin/wire.rs reads; see there.
#[repr(C)]
#[derive(Clone, Copy)]
struct Settings {
    first: u32,
    flows: u32,
    stride: u32,
    interface: u32,
    ip_sum: u32,
    tcp_sum: u32,
    frame: [u8; BYTES],
}

// SAFETY: repr(C) over integers, without padding: 6 × 4 + 60 bytes, aligned to 4.
unsafe impl Pod for Settings {}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut wire = EbpfLoader::new().load_file(&cli.object)?;
    for name in ["generate", "count"] {
        program(&mut wire, name)?.load().with_context(|| format!("loading {name}"))?;
    }
    if cli.sink != "none" {
        program(&mut wire, "count")?.attach(&cli.sink, XdpMode::Driver)?;
    }
    let most = cli.flows.iter().copied().max().context("no flows")?;
    let opening = if cli.join { [PSH_ACK; 3] } else { [SYN, PSH_ACK, PSH_ACK] };
    for flags in opening {
        set(&mut wire, settings(&cli, most, flags)?)?;
        send(&mut wire, most)?;
    }
    for &flows in &cli.flows {
        set(&mut wire, settings(&cli, flows, PSH_ACK)?)?;
        let mut counts = Vec::new();
        for _ in 0..cli.rounds {
            counts.push(count(&mut wire, cli.frames)?);
        }
        counts.sort_by(f64::total_cmp);
        println!(
            "count {}|{flows}|{:.0}|{:.0}|{:.0}",
            cli.name,
            counts[counts.len() / 2],
            counts[0],
            counts[counts.len() - 1]
        );
    }
    Ok(())
}

/// Instructions for each frame, of a round in which all of them arrived.
fn count(wire: &mut Ebpf, frames: u32) -> Result<f64> {
    let softirq = softirq()?;
    let mut arrived = 0;
    for _ in 0..TRIES {
        let before = seen(wire)?;
        let started = instructions(&softirq)?;
        send(wire, frames)?;
        let took = instructions(&softirq)? - started;
        arrived = seen(wire)? - before;
        if arrived == u64::from(frames) {
            return Ok(took as f64 / f64::from(frames));
        }
    }
    bail!("{TRIES} times some frames did not arrive; last, {arrived} of {frames} did")
}

/// What this program and the kernel's thread for put-off interrupts have executed: CPU time, because
/// the clock leaps over idleness, and a call ends by waiting for the kernel to tidy up.
fn instructions(softirq: &Path) -> Result<u64> {
    let own = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
    let text = fs::read_to_string(softirq)?;
    let helper: u64 = text.split_whitespace().next().context("an empty schedstat")?.parse()?;
    Ok(own.as_nanos() as u64 + helper)
}

/// Where the kernel says how long that thread ran; there is one CPU.
fn softirq() -> Result<PathBuf> {
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim() == "ksoftirqd/0" {
            return Ok(path.join("schedstat"));
        }
    }
    bail!("there is no ksoftirqd/0")
}

fn send(wire: &mut Ebpf, frames: u32) -> Result<()> {
    let frame = [0; BYTES];
    let options = TestRunOptions {
        data_in: Some(&frame),
        repeat: frames,
        attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
        ..TestRunOptions::new()
    };
    program(wire, "generate")?.test_run(options).context("PROG_TEST_RUN with live frames")?;
    Ok(())
}

fn seen(wire: &Ebpf) -> Result<u64> {
    let map: PerCpuArray<_, u64> = wire.map("SEEN").context("map SEEN")?.try_into()?;
    Ok(map.get(&0, 0)?.iter().sum())
}

fn set(wire: &mut Ebpf, settings: Settings) -> Result<()> {
    let mut round: Array<_, u32> = wire.map_mut("ROUND").context("map ROUND")?.try_into()?;
    round.set(0, 0, 0)?;
    let map = wire.map_mut("SETTINGS").context("map SETTINGS")?;
    let mut map: Array<_, Settings> = map.try_into()?;
    Ok(map.set(0, settings, 0)?)
}

fn program<'a>(wire: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(wire.program_mut(name).with_context(|| format!("program {name}"))?.try_into()?)
}

/// One frame of each flow, in turn.
fn settings(cli: &Cli, flows: u32, flags: u8) -> Result<Settings> {
    let mut frame = [0; BYTES];
    frame[..6].copy_from_slice(&cli.to);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 9, 9]);
    frame[12..14].copy_from_slice(&[8, 0]);
    let (ip, tcp) = frame[14..].split_at_mut(20);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(BYTES as u16 - 14).to_be_bytes());
    ip[6] = 0x40; // do not fragment
    (ip[8], ip[9]) = (64, 6);
    ip[12..16].copy_from_slice(&CLIENTS);
    ip[16..20].copy_from_slice(&cli.address.octets());
    tcp[2..4].copy_from_slice(&cli.port.to_be_bytes());
    tcp[4..8].copy_from_slice(&1000u32.to_be_bytes());
    if flags & SYN == 0 {
        tcp[8..12].copy_from_slice(&1000u32.to_be_bytes());
    }
    (tcp[12], tcp[13]) = (0x50, flags);
    tcp[14..16].copy_from_slice(&1024u16.to_be_bytes());
    let ip_sum = sum(ip);
    let tcp_sum = sum(tcp) + sum(&ip[12..20]) + 6 + tcp.len() as u32;
    let interface = if_nametoindex("g0").context("no link g0")?;
    Ok(Settings { first: 0, flows, stride: 1, interface, ip_sum, tcp_sum, frame })
}

/// The sum of 16-bit words in network order, with its carries still in the upper half.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> =
        text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("a MAC address has six bytes"))
}
