//! Health checks through the VIP: the program on egress that sends them there, and which VIP the
//! checks of a service go through. None of it is pinned: without a daemon nobody checks.

use std::collections::HashMap;

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::{SchedClassifier, TcAttachType, tc};
use lb_common::abi::{AddrV6, check_mark, mode};

use super::attach::Attachment;
use crate::desired::Desired;
use crate::reconcile::record::words;
use crate::reconcile::state::State;

/// Name of the program on egress.
const PROGRAM: &str = "medlb_check";

/// Which VIP each service's checks go through.
pub struct Checks {
    vips: Array<MapData, AddrV6>,
    written: HashMap<u32, AddrV6>,
}

impl Checks {
    /// Attaches the egress program to the interfaces that the balancer runs on.
    ///
    /// # Errors
    /// The kernel refuses the program; nothing is attached then that outlives the daemon.
    pub fn attach(programs: &mut Ebpf, attachments: &[Attachment]) -> anyhow::Result<Self> {
        let map = programs.take_map("CHECK_VIPS").context("the object has no map CHECK_VIPS")?;
        let vips = Array::try_from(map)?;
        let program: &mut SchedClassifier = programs
            .program_mut(PROGRAM)
            .with_context(|| format!("the object has no program {PROGRAM}"))?
            .try_into()?;
        program.load().with_context(|| format!("the kernel refuses the program {PROGRAM}"))?;
        for Attachment { name, .. } in attachments {
            // Before Linux 6.6 the program is a filter of the clsact qdisc, which stays after a
            // crash: one that is there from then goes first. Neither has to exist.
            let _ = tc::qdisc_detach_program(name, TcAttachType::Egress, PROGRAM);
            let _ = tc::qdisc_add_clsact(name);
            program
                .attach(name, TcAttachType::Egress)
                .with_context(|| format!("cannot attach {PROGRAM} to {name}"))?;
        }
        Ok(Self { vips, written: HashMap::new() })
    }

    /// Tells the program about the VIPs of the services in direct routing; all others are checked
    /// at their real servers' addresses.
    ///
    /// # Errors
    /// The kernel refuses a write.
    pub fn follow(&mut self, desired: &Desired, state: &State) -> anyhow::Result<()> {
        for service in &desired.services {
            let Some(known) = state.services.get(&service.label) else { continue };
            let vip = match service.mode {
                mode::DR => AddrV6(words(service.address)),
                _ => AddrV6::default(),
            };
            if self.written.get(&known.index) != Some(&vip) {
                self.vips.set(known.index, vip, 0).context("cannot write CHECK_VIPS")?;
                self.written.insert(known.index, vip);
            }
        }
        Ok(())
    }

    /// The mark for the sockets of a service's checks.
    pub fn mark(&self, state: &State, service: &str) -> Option<u32> {
        let index = state.services.get(service)?.index;
        self.written.get(&index).filter(|vip| **vip != AddrV6::default())?;
        check_mark(index)
    }
}
