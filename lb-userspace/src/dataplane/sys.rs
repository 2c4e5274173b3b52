//! The bpf(2) commands that aya does not offer: batches of map elements, detaching a link at once.
//! Map elements are raw bytes here; `table` gives them types.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The part of `union bpf_attr` for one element (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` for batches.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The part of `union bpf_attr` for pinned objects.
#[repr(C)]
#[derive(Default)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` for links.
#[repr(C)]
struct Link {
    link_fd: u32,
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is the kernel's layout of this command's part of the union, and its size is
    // passed; the callers below pass pointers to buffers that live across the call and have the
    // sizes which the kernel derives from the map.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>() as u32)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Detaches a pinned link now. Removing the pin alone detaches a little later, when the kernel
/// has let go of the last reference.
pub fn detach(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut object = Object { pathname: path.as_ptr() as u64, ..Object::default() };
    let fd = bpf(BPF_OBJ_GET, &mut object)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    bpf(BPF_LINK_DETACH, &mut Link { link_fd: fd.as_raw_fd() as u32 })?;
    Ok(())
}

fn element(fd: BorrowedFd<'_>, key: *const u8, value: *const u8) -> Element {
    Element {
        map_fd: fd.as_raw_fd() as u32,
        key: key as u64,
        value: value as u64,
        ..Element::default()
    }
}

/// Reads one element into `value`. `false`: there is none.
///
/// # Safety
/// `key` and `value` have the map's key size and its value size as user space sees it.
pub unsafe fn lookup(fd: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr = element(fd, key.as_ptr(), value.as_mut_ptr());
    match bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes one element.
///
/// # Safety
/// As for [`lookup`].
pub unsafe fn update(fd: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    bpf(BPF_MAP_UPDATE_ELEM, &mut element(fd, key.as_ptr(), value.as_ptr()))?;
    Ok(())
}

/// Removes one element. `false`: there was none.
///
/// # Safety
/// `key` has the map's key size.
pub unsafe fn delete(fd: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    match bpf(BPF_MAP_DELETE_ELEM, &mut element(fd, key.as_ptr(), std::ptr::null())) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What one batch of a walk gave.
pub struct Walked {
    /// Elements that were read.
    pub count: u32,
    /// There are no more.
    pub end: bool,
    /// The buffers are too small for the next bucket of the hash: none was read; try larger ones.
    pub too_small: bool,
}

/// Reads up to `count` elements from where `cursor` stands (`started` is false for the first
/// call), and moves it.
///
/// # Safety
/// `cursor` has at least the map's key size and four bytes; `keys` and `values` have room for
/// `count` elements.
pub unsafe fn walk(
    fd: BorrowedFd<'_>,
    cursor: &mut [u8],
    started: bool,
    keys: &mut [u8],
    values: &mut [u8],
    count: u32,
) -> io::Result<Walked> {
    let place = cursor.as_mut_ptr() as u64;
    let mut attr = Batch {
        in_batch: if started { place } else { 0 },
        out_batch: place,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map_fd: fd.as_raw_fd() as u32,
        ..Batch::default()
    };
    let walked = |count, end, too_small| Ok(Walked { count, end, too_small });
    match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
        Ok(_) => walked(attr.count, false, false),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => walked(attr.count, true, false),
            Some(libc::ENOSPC) => walked(0, false, true),
            _ => Err(error),
        },
    }
}

/// Writes `count` elements.
///
/// # Safety
/// `keys` and `values` hold `count` elements.
pub unsafe fn update_batch(
    fd: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
) -> io::Result<()> {
    let mut attr = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map_fd: fd.as_raw_fd() as u32,
        ..Batch::default()
    };
    bpf(BPF_MAP_UPDATE_BATCH, &mut attr)?;
    Ok(())
}
