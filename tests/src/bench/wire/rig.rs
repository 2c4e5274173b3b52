//! One contender: a namespace that sends and counts, and one that forwards between them.

use std::fs::File;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, PerCpuArray};
use aya::programs::xdp::XdpMode;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::time::{ClockId, clock_gettime};

use super::super::helpers::Helpers;
use super::contender::{Contender, PORT, REALS, VIP, real};
use super::frame::{BYTES, Path, Settings};
use crate::lab::{Lab, Medlb, Netns};

/// Frames that are on their way at once: what a veth ring holds is four times that.
const BATCH: u32 = 64;
/// Flows that are opened before their next segments follow; the half-open table holds more.
const CHUNK: u32 = 4096;

/// A contender, set up.
pub(in crate::bench) struct Rig {
    /// Who forwards.
    pub(super) contender: Contender,
    wire: Ebpf,
    /// Attached in the middle, for the contenders that are programs of the benchmark.
    _middle: Option<Ebpf>,
    /// Kept alive.
    pub(in crate::bench) medlb: Option<Medlb>,
    outside: Netns,
    path: Path,
    helpers: Helpers,
    _lab: Lab,
}

/// What one slice came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    /// Packets that arrived, a second of the sending CPU's time.
    pub rate: f64,
    /// What part of the packets sent arrived.
    pub arrived: f64,
}

impl Rig {
    /// Builds namespaces, cables and what forwards; opens no flows.
    pub(super) fn build(contender: Contender, maximum_flows: u32) -> Result<Self> {
        let lab = Lab::new()?;
        let (outside, inside) = (lab.namespace("out")?, lab.namespace("lb")?);
        inside.join("eth0", &outside, "g0")?;
        inside.join("eth1", &outside, "s0")?;
        for (link, address) in [("eth0", "10.77.1.2/24"), ("eth1", "10.77.2.2/24")] {
            inside.ip(&format!("addr add {address} dev {link}"))?;
        }
        let sink = outside.mac("s0")?;
        for number in 0..REALS {
            let real = real(number);
            inside.ip(&format!("neigh add {real} lladdr {sink} dev eth1 nud permanent"))?;
        }
        let address = if contender == Contender::Routing { real(0) } else { VIP };
        let path = Path {
            interface: index(&outside, "g0")?,
            from: bytes(&outside.mac("g0")?)?,
            to: bytes(&inside.mac("eth0")?)?,
            address,
            port: PORT,
        };
        let mut wire = load()?;
        let mut middle = None;
        match contender {
            Contender::Drop => attach(&mut wire, "count", &inside, "eth0")?,
            Contender::Bare => {
                attach(&mut wire, "count", &outside, "s0")?;
                let mut bare = load()?;
                let onwards = Path {
                    interface: index(&inside, "eth1")?,
                    from: bytes(&inside.mac("eth1")?)?,
                    to: bytes(&sink)?,
                    ..path
                };
                set(&mut bare, Settings::forwarding(&onwards))?;
                attach(&mut bare, "bare", &inside, "eth0")?;
                middle = Some(bare);
            }
            _ => attach(&mut wire, "count", &outside, "s0")?,
        }
        let medlb = contender.start(&lab, &inside, maximum_flows)?;
        Ok(Self {
            contender,
            wire,
            _middle: middle,
            medlb,
            outside,
            path,
            helpers: Helpers::find()?,
            _lab: lab,
        })
    }

    /// Opens this many flows: the handshake of each, for those who want one.
    pub(super) fn open(&mut self, flows: u32) -> Result<()> {
        let netns = self.outside.clone();
        within(&netns, || {
            let mut first = 0;
            while first < flows {
                let some = CHUNK.min(flows - first);
                if self.medlb.is_some() {
                    set(&mut self.wire, Settings::opening(&self.path, first, some))?;
                    self.send(some)?;
                }
                set(&mut self.wire, Settings::following(&self.path, first, some))?;
                self.send(some)?;
                first += some;
            }
            Ok(())
        })
    }

    /// Sends for about this long, over this many flows; on the CPU that the caller is pinned to.
    pub(super) fn slice(&mut self, flows: u32, length: Duration) -> Result<Slice> {
        let netns = self.outside.clone();
        within(&netns, || {
            set(&mut self.wire, Settings::established(&self.path, flows))?;
            let trial = flows.max(100_000);
            let took = self.time(trial)?;
            let sent = f64::from(trial) * length.as_secs_f64() / took;
            let sent = (sent as u32).max(trial);
            let before = self.seen()?;
            let took = self.time(sent)?;
            let seen = (self.seen()? - before) as f64;
            Ok(Slice { rate: seen / took, arrived: seen / f64::from(sent) })
        })
    }

    /// Seconds of CPU time that it takes to send so many. What the sent packets set off is done in
    /// the sender's time, as soon as a batch is out, or put off to the kernel's threads for it.
    fn time(&self, frames: u32) -> Result<f64> {
        let spent = || -> Result<Duration> {
            let own = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
            Ok(own + self.helpers.spent()?)
        };
        let before = spent()?;
        self.send(frames)?;
        Ok((spent()? - before).as_secs_f64())
    }

    fn send(&self, frames: u32) -> Result<()> {
        let program: &Xdp = self.wire.program("generate").context("program")?.try_into()?;
        let frame = [0; BYTES];
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        program.test_run(options).context("PROG_TEST_RUN with live frames")?;
        Ok(())
    }

    fn seen(&self) -> Result<u64> {
        let map: PerCpuArray<_, u64> = self.wire.map("SEEN").context("map SEEN")?.try_into()?;
        Ok(map.get(&0, 0)?.iter().sum())
    }
}

fn load() -> Result<Ebpf> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/wire.bpf.o");
    let mut ebpf = EbpfLoader::new()
        .load_file(path)
        .context("no object: run `cargo xtask build-ebpf` (and be root)")?;
    for name in ["generate", "count", "bare"] {
        let program: &mut Xdp = ebpf.program_mut(name).context("program")?.try_into()?;
        program.load().with_context(|| format!("loading {name}"))?;
    }
    Ok(ebpf)
}

fn set(ebpf: &mut Ebpf, settings: Settings) -> Result<()> {
    let mut round: Array<_, u32> = ebpf.map_mut("ROUND").context("map ROUND")?.try_into()?;
    round.set(0, 0, 0)?;
    let map = ebpf.map_mut("SETTINGS").context("map SETTINGS")?;
    let mut map: Array<_, Settings> = map.try_into()?;
    Ok(map.set(0, settings, 0)?)
}

/// In the driver; the kernel detaches it when the object goes.
fn attach(ebpf: &mut Ebpf, name: &str, netns: &Netns, link: &str) -> Result<()> {
    within(netns, || {
        let program: &mut Xdp = ebpf.program_mut(name).context("program")?.try_into()?;
        program.attach(link, XdpMode::Driver).with_context(|| format!("attaching to {link}"))?;
        Ok(())
    })
}

fn index(netns: &Netns, link: &str) -> Result<u32> {
    within(netns, || if_nametoindex(link).with_context(|| format!("no link {link}")))
}

/// Does something in a namespace: a thread of its own enters it and ends there.
fn within<T: Send>(netns: &Netns, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = netns.path();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            setns(file, CloneFlags::CLONE_NEWNET).context("setns")?;
            work()
        });
        thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })
}

/// A MAC address as `ip` writes it.
fn bytes(text: &str) -> Result<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next().context("a short MAC address")?, 16)?;
    }
    ensure!(parts.next().is_none(), "a long MAC address");
    Ok(mac)
}

/// For addresses in configuration files.
pub(super) fn list(number: u8) -> impl Iterator<Item = Ipv4Addr> {
    (0..number).map(real)
}
