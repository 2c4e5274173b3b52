//! `cargo xtask demo`: a client, medlb and two real DICOM servers in network namespaces; each
//! forwarding method in turn carries real images and survives the death of a server. Whatever it
//! says happened was observed; what did not happen ends it with an error.

mod dicom;
mod evidence;
mod scene;
mod screen;

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use nix::unistd::Uid;
use tests::lab::{Arms, Method};

use crate::{ebpf, progress, setup, test};
use scene::Scene;
use screen::Screen;

/// A forwarding method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// Direct routing.
    Dr,
    /// Destination translation.
    Nat,
    /// Destination and source translation.
    Snat,
}

impl ModeName {
    const ALL: [Self; 3] = [Self::Dr, Self::Nat, Self::Snat];

    fn method(self) -> Method {
        match self {
            Self::Dr => Method::Dr,
            Self::Nat => Method::Nat,
            Self::Snat => Method::Snat,
        }
    }

    /// One network for each kind, so that both are seen.
    fn arms(self) -> Arms {
        if self == Self::Nat { Arms::Two } else { Arms::One }
    }

    fn title(self) -> (&'static str, &'static str) {
        match self {
            Self::Dr => ("DR", "one LAN; servers answer the client themselves, from the VIP"),
            Self::Nat => {
                ("NAT", "two LANs; medlb is the servers' gateway and translates both ways")
            }
            Self::Snat => ("SNAT", "one LAN; servers see medlb as the client, and need no set-up"),
        }
    }
}

/// Shows it; all modes when `modes` is empty. With `capture`, `tcpdump` runs on both sides of medlb.
///
/// # Errors
/// Anything that was claimed did not happen.
pub fn run(modes: &[ModeName], capture: bool) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!(
            "the demo loads an eBPF program and makes network namespaces, so it needs root: \
             `sudo -E env PATH=\"$PATH\" cargo xtask demo`"
        );
    }
    let toolchain = setup::ensure()?;
    ebpf::build(&toolchain)?;
    let mut build = test::cargo_command(&["build", "--package", "lb-userspace"]);
    progress::step("medlb", "medlb (some minutes the first time)", &mut build)?;
    let screen = Screen::new();
    let started = Instant::now();
    let modes = if modes.is_empty() { &ModeName::ALL } else { modes };
    screen.heading("medlb: real DICOM images through an XDP load balancer, and a server that dies");
    screen.line("client 10.77.1.10 ──► VIP 10.77.1.100:104 (medlb) ──► PACS1 and PACS2 (storescp)");
    for mode in modes {
        let (name, words) = mode.title();
        one(&screen, *mode, capture).with_context(|| format!("{name}: {words}"))?;
    }
    let seconds = started.elapsed().as_secs_f64();
    screen.heading(&format!("All of this happened, in {seconds:.0} s; nothing is left behind."));
    screen.line("Next: README.md, \"On a real interface\".");
    Ok(())
}

fn one(screen: &Screen, mode: ModeName, capture: bool) -> Result<()> {
    let (name, words) = mode.title();
    screen.chapter(name, words);
    let mut scene = Scene::open(screen, mode.method(), mode.arms(), capture)?;
    scene.play()?;
    scene.close()
}
