//! The smallest XDP program: XDP_PASS. A veth end takes part in XDP_TX and redirection only when
//! a program is on it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};

use super::Netns;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// Jumbo frames may pass.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;

/// `r0 = 2; exit` (include/uapi/linux/bpf.h: BPF_ALU64|BPF_MOV|BPF_K, BPF_JMP|BPF_EXIT).
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The head of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
struct Link {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// An attached XDP_PASS; detached on drop.
#[derive(Debug)]
pub struct Pass {
    _link: OwnedFd,
}

impl Pass {
    /// Attaches to `link` of `netns`, in the driver.
    ///
    /// # Errors
    /// No such link, or the kernel refuses.
    pub fn attach(netns: &Netns, link: &str) -> Result<Self> {
        let (path, link) = (netns.path(), link.to_owned());
        // A thread of its own enters the namespace and ends there.
        let attach = move || -> Result<OwnedFd> {
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            setns(file, CloneFlags::CLONE_NEWNET).context("setns")?;
            let index = if_nametoindex(link.as_str()).with_context(|| format!("no link {link}"))?;
            let program = load().context("loading XDP_PASS")?;
            create(&program, index).with_context(|| format!("attaching XDP_PASS to {link}"))
        };
        let thread = std::thread::spawn(attach);
        let link =
            thread.join().map_err(|_| anyhow::anyhow!("the attaching thread panicked"))??;
        Ok(Self { _link: link })
    }
}

fn load() -> io::Result<OwnedFd> {
    let license = c"GPL";
    let attr = Load {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: PASS.len() as u32,
        insns: PASS.as_ptr() as u64,
        license: license.as_ptr() as u64,
        prog_flags: BPF_F_XDP_HAS_FRAGS,
        ..Load::default()
    };
    // SAFETY: the pointers in `attr` live until the call returns.
    unsafe { bpf(BPF_PROG_LOAD, &attr) }
}

fn create(program: &OwnedFd, index: u32) -> io::Result<OwnedFd> {
    let attr = Link {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: index,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: `attr` holds no pointers.
    unsafe { bpf(BPF_LINK_CREATE, &attr) }
}

/// bpf(2), for commands that return a descriptor.
///
/// # Safety
/// `T` is the head of `union bpf_attr` for `command`, and pointers in it are valid for the call.
unsafe fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise; the kernel reads `size_of::<T>()` bytes and takes the rest as
    // zeros.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
