//! Puts the program on interfaces and takes it off. Links are pinned, so that forwarding goes on
//! without the daemon; a new program replaces the old one in them without a gap.

use anyhow::{Context as _, anyhow, bail, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, Xdp, XdpMode as Mode, loaded_programs};

use super::link::{self, By};
use super::pins::{Pins, unlink};
use crate::config::model::{Interface, XdpMode};

/// An interface that the program runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the interface.
    pub name: String,
    /// The kernel's index of it.
    pub ifindex: u32,
    /// In the driver, not in the stack.
    pub native: bool,
}

/// Checks that all interfaces are there, and names all that are not.
pub fn interfaces_exist(interfaces: &[Interface]) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    for interface in interfaces {
        if link::query(By::Name(&interface.name))?.is_none() {
            missing.push(interface.name.as_str());
        }
    }
    ensure!(
        missing.is_empty(),
        "no such interface: {}; `ip link` lists those that there are",
        missing.join(", ")
    );
    Ok(())
}

/// Attaches to the interfaces of the file, new ones first: they can fail, and then nothing has
/// changed. Then gives existing links the new program, and detaches the rest.
pub fn all(
    program: &mut Xdp,
    pins: &Pins,
    interfaces: &[Interface],
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Attachment>> {
    let linked = pins.linked().context("cannot list pinned links")?;
    let (old, new): (Vec<_>, Vec<_>) = interfaces.iter().partition(|i| linked.contains(&i.name));
    let mut made = Vec::new();
    for interface in new {
        if let Err(error) = attach_and_pin(program, pins, interface, notes) {
            for name in made {
                let _ = pins.detach(name); // the first error is the one to report
            }
            return Err(error);
        }
        made.push(interface.name.as_str());
    }
    for interface in old {
        renew(program, pins, interface, notes)?;
    }
    for name in linked.iter().filter(|name| !interfaces.iter().any(|i| i.name == **name)) {
        pins.detach(name)?;
        notes.push(format!("detached from {name}, which is not in the file any more"));
    }
    unlink(&pins.program)?;
    program
        .pin(&pins.program)
        .with_context(|| format!("cannot pin the program at {}", pins.program.display()))?;
    interfaces.iter().map(describe).collect()
}

fn describe(interface: &Interface) -> anyhow::Result<Attachment> {
    let link = link::query(By::Name(&interface.name))?
        .with_context(|| format!("{} has gone away", interface.name))?;
    Ok(Attachment {
        name: interface.name.clone(),
        ifindex: link.ifindex,
        native: link.xdp.is_some_and(|xdp| xdp.native),
    })
}

fn attach_and_pin(
    program: &mut Xdp,
    pins: &Pins,
    interface: &Interface,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let id = attach(program, interface, notes)?;
    let link = fd_link(program, id, &interface.name)?;
    let path = pins.link(&interface.name);
    link.pin(&path).with_context(|| format!("cannot pin a link at {}", path.display()))?;
    Ok(())
}

fn fd_link(program: &mut Xdp, id: XdpLinkId, name: &str) -> anyhow::Result<FdLink> {
    program.take_link(id)?.try_into().map_err(|_| {
        anyhow!("{name} takes XDP programs only by netlink, which cannot be pinned: not supported")
    })
}

fn attach(
    program: &mut Xdp,
    interface: &Interface,
    notes: &mut Vec<String>,
) -> anyhow::Result<XdpLinkId> {
    let name = interface.name.as_str();
    let before =
        link::query(By::Name(name))?.with_context(|| format!("no such interface: {name}"))?;
    if let Some(xdp) = before.xdp {
        bail!(in_use(name, xdp.program));
    }
    let explain = |error: ProgramError| -> anyhow::Error {
        match raw_error(&error) {
            Some(libc::EBUSY | libc::EEXIST) => anyhow!(in_use(name, 0)),
            _ => error.into(),
        }
    };
    match interface.xdp_mode {
        XdpMode::Generic => program
            .attach_to_if_index(before.ifindex, Mode::Skb)
            .map_err(explain)
            .with_context(|| format!("cannot attach to {name} in generic mode")),
        XdpMode::Native => program
            .attach_to_if_index(before.ifindex, Mode::Driver)
            .map_err(explain)
            .with_context(|| {
                format!(
                    "cannot attach to {name} in native mode (its driver may not support XDP, \
                         or not with an MTU of {}): say `xdp_mode: auto` or `generic`",
                    before.mtu
                )
            }),
        XdpMode::Auto => match program.attach_to_if_index(before.ifindex, Mode::Driver) {
            Ok(id) => Ok(id),
            Err(error) if matches!(raw_error(&error), Some(libc::EBUSY | libc::EEXIST)) => {
                Err(explain(error))
            }
            Err(error) => {
                let id = program
                    .attach_to_if_index(before.ifindex, Mode::Skb)
                    .map_err(explain)
                    .with_context(|| format!("cannot attach to {name} in either mode"))?;
                notes.push(format!(
                    "{name} runs XDP in generic mode, which is slower: native mode failed with \
                     \"{:#}\"",
                    anyhow::Error::from(error)
                ));
                Ok(id)
            }
        },
    }
}

fn raw_error(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn in_use(interface: &str, id: u32) -> String {
    let name = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned));
    let which = match (id, name) {
        (0, _) => String::new(),
        (id, None) => format!(" (id {id})"),
        (id, Some(name)) => format!(" (id {id}, name {name})"),
    };
    format!(
        "{interface} already has an XDP program{which}: detach it with `ip link set dev \
         {interface} xdp off`, or tear down the medlb instance that it belongs to"
    )
}

/// Puts the new program into an existing link.
fn renew(
    program: &mut Xdp,
    pins: &Pins,
    interface: &Interface,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let name = interface.name.as_str();
    let path = pins.link(name);
    let pinned = PinnedLink::from_pin(&path)
        .with_context(|| format!("cannot open the pinned link {}", path.display()))?;
    let link: XdpLink = FdLink::from(pinned)
        .try_into()
        .with_context(|| format!("{} is not an XDP link", path.display()))?;
    match program.attach_to_link(link) {
        Ok(id) => {
            // The pin holds the link; this run's descriptor is not needed.
            drop(fd_link(program, id, name)?);
            let native = describe(interface)?.native;
            let wanted = match interface.xdp_mode {
                XdpMode::Auto => native,
                XdpMode::Native => true,
                XdpMode::Generic => false,
            };
            if native != wanted {
                notes.push(format!(
                    "{name} keeps running in {} mode: a change of xdp_mode needs `medlb teardown` \
                     and a new start (connections are lost)",
                    if native { "native" } else { "generic" }
                ));
            }
            Ok(())
        }
        // The interface was removed and made anew: the link points at one that is gone.
        Err(error) if raw_error(&error) == Some(libc::ENOLINK) => {
            unlink(&path)?;
            notes.push(format!("{name} was made anew: attached to it again"));
            attach_and_pin(program, pins, interface, notes)
        }
        Err(error) => Err(error).with_context(|| format!("cannot renew the program on {name}")),
    }
}
