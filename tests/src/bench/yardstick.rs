//! The object with the yardstick and the shim (lb-ebpf/src/bin/yardstick.rs), loaded.

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};

/// Bytes of headers that the shim restores, and the two before them.
const HEADERS: usize = 76;

/// In which order the shim goes through how many flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    flows: u32,
    stride: u32,
}

impl Round {
    /// Always the same.
    pub const ONE: Self = Self { flows: 1, stride: 1 };

    /// In the order in which they were put into the table; `flows` is a power of two. Entries lie
    /// in memory in that order, which the processor notices and fetches them early.
    pub const fn in_turn(flows: u32) -> Self {
        Self { flows, stride: 1 }
    }

    /// As if at random.
    pub const fn scattered(flows: u32) -> Self {
        Self { flows, stride: 0x9E37_79B1 }
    }
}

/// The map value that tells the shim what to do.
#[repr(C)]
#[derive(Clone, Copy)]
struct Settings {
    flows: u32,
    stride: u32,
    v6: u32,
    original: [u8; HEADERS],
}

// SAFETY: repr(C) over integers, without padding: 3 × 4 + 76 bytes, aligned to 4.
unsafe impl Pod for Settings {}

/// The loaded object.
pub struct Yardstick {
    ebpf: Ebpf,
}

impl Yardstick {
    /// Loads it.
    pub fn load() -> Result<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/yardstick.bpf.o");
        let mut ebpf = EbpfLoader::new()
            .load_file(path)
            .context("no object: run `cargo xtask build-ebpf` (and be root)")?;
        for name in ["mac_swap", "nothing", "shim"] {
            let program: &mut Xdp = ebpf.program_mut(name).context("program")?.try_into()?;
            program.load()?;
        }
        Ok(Self { ebpf })
    }

    /// One of its programs.
    pub fn program(&self, name: &str) -> Result<&Xdp> {
        Ok(self.ebpf.program(name).context("program")?.try_into()?)
    }

    /// Has the shim make flows of this frame.
    pub fn settings(&mut self, frame: &[u8], round: Round) -> Result<()> {
        let Round { flows, stride } = round;
        ensure!(flows.is_power_of_two(), "the shim goes round a power of two of flows");
        let v6 = u32::from(frame[12..14] == [0x86, 0xdd]);
        let mut original = [0; HEADERS];
        let n = frame.len().min(HEADERS - 2);
        original[2..n + 2].copy_from_slice(&frame[..n]);
        let mut map: Array<_, Settings> =
            self.ebpf.map_mut("SETTINGS").context("map SETTINGS")?.try_into()?;
        map.set(0, Settings { flows, stride, v6, original }, 0)?;
        Ok(())
    }

    /// Sends this many frames through the shim to what comes [`next`](Self::next).
    ///
    /// # Errors
    /// PROG_TEST_RUN fails, or the program gives up.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<()> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = self.program("shim")?.test_run(options).context("PROG_TEST_RUN")?;
        ensure!(result.return_value != 0, "the program gave up (XDP_ABORTED)");
        Ok(())
    }

    /// Has the shim go on to this program.
    pub fn next(&mut self, program: &ProgramFd) -> Result<()> {
        let mut map: ProgramArray<_> = self.ebpf.map_mut("NEXT").context("map NEXT")?.try_into()?;
        Ok(map.set(0, program, 0)?)
    }
}
