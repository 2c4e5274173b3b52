//! Puts the program on interfaces and takes it off. Links are pinned, so that forwarding goes on
//! without the daemon; a new program replaces the old one in them without a gap.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, Xdp, XdpMode as Mode, loaded_programs};

use super::link::{self, By};
use super::load::verify;
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

/// The load balancer in its two forms.
#[derive(Debug)]
pub struct Balancer<'a> {
    /// Takes jumbo frames (`xdp.frags`); loaded.
    pub with_frags: &'a mut Xdp,
    /// For drivers that refuse the other; loaded when one does.
    pub linear: &'a mut Xdp,
}

impl Balancer<'_> {
    fn form(&mut self, frags: bool) -> Result<&mut Xdp, ProgramError> {
        if frags {
            return Ok(self.with_frags);
        }
        match verify(self.linear) {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(self.linear),
            Err(error) => Err(error),
        }
    }
}

/// Attaches to the interfaces of the file, new ones first: they can fail, and then nothing has
/// changed. Then gives existing links the new program, and detaches the rest.
pub fn all(
    mut balancer: Balancer<'_>,
    pins: &Pins,
    interfaces: &[Interface],
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Attachment>> {
    let linked = pins.linked().context("cannot list pinned links")?;
    let (old, new): (Vec<_>, Vec<_>) = interfaces.iter().partition(|i| linked.contains(&i.name));
    let mut made = Vec::new();
    for interface in new {
        if let Err(error) = attach_and_pin(&mut balancer, pins, interface, notes) {
            for name in made {
                let _ = pins.detach(name); // the first error is the one to report
            }
            return Err(error);
        }
        made.push(interface.name.as_str());
    }
    for interface in old {
        renew(&mut balancer, pins, interface, notes)?;
    }
    for name in linked.iter().filter(|name| !interfaces.iter().any(|i| i.name == **name)) {
        pins.detach(name)?;
        notes.push(format!("detached from {name}, which is not in the file any more"));
    }
    unlink(&pins.program)?;
    balancer
        .with_frags
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
    balancer: &mut Balancer<'_>,
    pins: &Pins,
    interface: &Interface,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let link = attach(balancer, interface, notes)?;
    let path = pins.link(&interface.name);
    link.pin(&path).with_context(|| format!("cannot pin a link at {}", path.display()))?;
    Ok(())
}

fn fd_link(program: &mut Xdp, id: XdpLinkId, name: &str) -> anyhow::Result<FdLink> {
    program.take_link(id)?.try_into().map_err(|_| {
        anyhow!("{name} takes XDP programs only by netlink, which cannot be pinned: not supported")
    })
}

/// What to try on an interface, in order: the mode, and whether with `frags`.
fn ways(mode: XdpMode) -> &'static [(Mode, bool)] {
    const ALL: [(Mode, bool); 4] =
        [(Mode::Driver, true), (Mode::Driver, false), (Mode::Skb, true), (Mode::Skb, false)];
    match mode {
        XdpMode::Native => &ALL[..2],
        XdpMode::Generic => &ALL[2..],
        XdpMode::Auto => &ALL,
    }
}

fn words(mode: Mode, frags: bool) -> &'static str {
    match (mode, frags) {
        (Mode::Driver, true) => "native",
        (Mode::Driver, false) => "native without jumbo frames",
        (_, true) => "generic",
        (_, false) => "generic without jumbo frames",
    }
}

fn attach(
    balancer: &mut Balancer<'_>,
    interface: &Interface,
    notes: &mut Vec<String>,
) -> anyhow::Result<FdLink> {
    let name = interface.name.as_str();
    let before =
        link::query(By::Name(name))?.with_context(|| format!("no such interface: {name}"))?;
    if let Some(xdp) = before.xdp {
        bail!(in_use(name, xdp.program));
    }
    let mut refusals = Vec::new();
    for &(mode, frags) in ways(interface.xdp_mode) {
        match try_way(balancer, before.ifindex, mode, frags) {
            Ok((program, id)) => {
                if !refusals.is_empty() {
                    notes.push(second_best(name, mode, frags, &refusals));
                }
                return fd_link(program, id, name);
            }
            Err(error) if matches!(raw_error(&error), Some(libc::EBUSY | libc::EEXIST)) => {
                bail!(in_use(name, 0));
            }
            Err(error) => {
                let error = anyhow::Error::from(error);
                refusals.push(format!("{}: {error:#}", words(mode, frags)));
            }
        }
    }
    let hint = if interface.xdp_mode == XdpMode::Native {
        format!(
            "; its driver may not support XDP, or not with an MTU of {}: say `xdp_mode: auto` or \
             `generic`",
            before.mtu
        )
    } else {
        String::new()
    };
    bail!("cannot attach to {name} ({}){hint}", refusals.join("; "))
}

fn try_way<'a>(
    balancer: &'a mut Balancer<'_>,
    ifindex: u32,
    mode: Mode,
    frags: bool,
) -> Result<(&'a mut Xdp, XdpLinkId), ProgramError> {
    #[cfg(test)]
    if frags && tests::FRAGS_REFUSED.get() {
        return Err(ProgramError::NotLoaded);
    }
    let program = balancer.form(frags)?;
    let id = program.attach_to_if_index(ifindex, mode)?;
    Ok((program, id))
}

/// A note for the operator on an interface that does not run as it best could.
fn second_best(name: &str, mode: Mode, frags: bool, refusals: &[String]) -> String {
    let what = match (mode, frags) {
        (Mode::Driver, _) => "takes no jumbo frames: its driver refuses programs with xdp.frags",
        (_, true) => "runs XDP in generic mode, which is slower",
        (_, false) => "runs XDP in generic mode, which is slower, and takes no jumbo frames",
    };
    format!("{name} {what} ({})", refusals.join("; "))
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
    balancer: &mut Balancer<'_>,
    pins: &Pins,
    interface: &Interface,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let name = interface.name.as_str();
    let path = pins.link(name);
    let mut renewed = put_into_link(balancer, &path, name, true);
    if renewed.as_ref().is_err_and(|error| raw(error) != Some(libc::ENOLINK)) {
        renewed = put_into_link(balancer, &path, name, false);
    }
    match renewed {
        Ok(()) => {
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
        Err(error) if raw(&error) == Some(libc::ENOLINK) => {
            unlink(&path)?;
            notes.push(format!("{name} was made anew: attached to it again"));
            attach_and_pin(balancer, pins, interface, notes)
        }
        Err(error) => Err(error).with_context(|| format!("cannot renew the program on {name}")),
    }
}

fn put_into_link(
    balancer: &mut Balancer<'_>,
    path: &Path,
    name: &str,
    frags: bool,
) -> anyhow::Result<()> {
    #[cfg(test)]
    if frags && tests::FRAGS_REFUSED.get() {
        return Err(ProgramError::NotLoaded.into());
    }
    let pinned = PinnedLink::from_pin(path)
        .with_context(|| format!("cannot open the pinned link {}", path.display()))?;
    let link: XdpLink = FdLink::from(pinned)
        .try_into()
        .with_context(|| format!("{} is not an XDP link", path.display()))?;
    let program = balancer.form(frags)?;
    let id = program.attach_to_link(link)?;
    // The pin holds the link; this run's descriptor is not needed.
    fd_link(program, id, name).map(drop)
}

/// The kernel's error number, if an attachment failed with one.
fn raw(error: &anyhow::Error) -> Option<i32> {
    error.downcast_ref::<ProgramError>().and_then(raw_error)
}

#[cfg(test)]
pub mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// Stands for a driver that refuses programs with `xdp.frags`: none of this machine does.
        pub static FRAGS_REFUSED: Cell<bool> = const { Cell::new(false) };
    }

    #[test]
    fn an_interface_gets_the_best_that_it_takes() {
        let words = |mode| ways(mode).iter().map(|&(m, f)| words(m, f)).collect::<Vec<_>>();
        let native = ["native", "native without jumbo frames"];
        let generic = ["generic", "generic without jumbo frames"];
        assert_eq!(words(XdpMode::Native), native);
        assert_eq!(words(XdpMode::Generic), generic);
        assert_eq!(words(XdpMode::Auto), [native, generic].concat());
    }
}
