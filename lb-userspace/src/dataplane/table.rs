//! Typed access to pinned maps. Unlike aya's map types these can be shared between threads, and
//! they read and write in batches: a table with a million flows is walked in a tenth of a second.

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, bail};
use aya::Pod;
use aya::maps::MapData;

use super::sys;

/// Elements in one batch.
const BATCH: usize = 4096;
/// The largest that a batch grows to when one bucket of a hash does not fit.
const LARGEST_BATCH: usize = 1 << 20;

/// A map's descriptor and size.
struct Handle {
    fd: OwnedFd,
    capacity: u32,
}

impl Handle {
    /// Opens `dir/name` and checks the sizes of its keys and values, in bytes.
    fn open(dir: &Path, name: &str, key: usize, value: usize) -> anyhow::Result<Self> {
        let path = dir.join(name);
        let data = MapData::from_pin(&path)
            .with_context(|| format!("cannot open the pinned map {}", path.display()))?;
        let info = data.info().with_context(|| format!("cannot examine the map {name}"))?;
        if (info.key_size() as usize, info.value_size() as usize) != (key, value) {
            bail!(
                "the pinned map {} has another layout than this version of medlb expects: run \
                 `medlb teardown` first (connections are lost)",
                path.display()
            );
        }
        let fd = data.fd().as_fd().try_clone_to_owned().context("cannot duplicate a descriptor")?;
        Ok(Self { fd, capacity: info.max_entries() })
    }
}

fn bytes<T: Pod>(values: &[T]) -> &[u8] {
    // SAFETY: `Pod` types have no padding, so all their bytes are initialised.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_mut<T: Pod>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `bytes`, and every byte pattern is a value of a `Pod` type.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

fn zeroed<T: Pod>() -> T {
    // SAFETY: every byte pattern is a value of a `Pod` type.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// A hash map.
pub struct Table<K, V> {
    handle: Handle,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    /// Opens the map pinned at `dir/name`.
    pub fn open(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let handle = Handle::open(dir, name, size_of::<K>(), size_of::<V>())?;
        Ok(Self { handle, types: PhantomData })
    }

    /// How many entries it has room for.
    pub fn capacity(&self) -> u32 {
        self.handle.capacity
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = [zeroed::<V>()];
        let key = std::slice::from_ref(key);
        // SAFETY: `open` compared the sizes.
        let found =
            unsafe { sys::lookup(self.handle.fd.as_fd(), bytes(key), bytes_mut(&mut value)) }?;
        Ok(found.then_some(value[0]))
    }

    /// Inserts or replaces.
    pub fn set(&self, key: &K, value: &V) -> io::Result<()> {
        let (key, value) = (std::slice::from_ref(key), std::slice::from_ref(value));
        // SAFETY: `open` compared the sizes.
        unsafe { sys::update(self.handle.fd.as_fd(), bytes(key), bytes(value)) }
    }

    /// Removes; `false`: there was nothing.
    pub fn remove(&self, key: &K) -> io::Result<bool> {
        // SAFETY: `open` compared the sizes.
        unsafe { sys::delete(self.handle.fd.as_fd(), bytes(std::slice::from_ref(key))) }
    }

    /// Calls `visit` with every entry, a batch at a time. Entries that come or go meanwhile may be
    /// seen or not; none is seen twice.
    pub fn walk(&self, mut visit: impl FnMut(&[K], &[V]) -> io::Result<()>) -> io::Result<()> {
        let mut room = BATCH;
        let mut keys = vec![zeroed::<K>(); room];
        let mut values = vec![zeroed::<V>(); room];
        let mut cursor = vec![0u8; size_of::<K>().max(8)];
        let mut started = false;
        loop {
            // SAFETY: `open` compared the sizes, and the buffers have `room` elements.
            let walked = unsafe {
                sys::walk(
                    self.handle.fd.as_fd(),
                    &mut cursor,
                    started,
                    bytes_mut(&mut keys),
                    bytes_mut(&mut values),
                    room as u32,
                )
            }?;
            if walked.too_small {
                if room >= LARGEST_BATCH {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                room *= 4;
                keys.resize(room, zeroed());
                values.resize(room, zeroed());
                continue;
            }
            started = true;
            let count = walked.count as usize;
            visit(&keys[..count], &values[..count])?;
            if walked.end {
                return Ok(());
            }
        }
    }

    /// How many entries there are, by counting.
    pub fn count(&self) -> io::Result<u32> {
        let mut count = 0;
        self.walk(|keys, _| {
            count += keys.len() as u32;
            Ok(())
        })?;
        Ok(count)
    }
}

/// An array.
pub struct List<V> {
    handle: Handle,
    types: PhantomData<fn() -> V>,
}

impl<V: Pod> List<V> {
    /// Opens the map pinned at `dir/name`.
    pub fn open(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let handle = Handle::open(dir, name, size_of::<u32>(), size_of::<V>())?;
        Ok(Self { handle, types: PhantomData })
    }

    /// How many elements it has.
    pub fn capacity(&self) -> u32 {
        self.handle.capacity
    }

    /// The element at `index`, which is below the capacity.
    pub fn get(&self, index: u32) -> io::Result<V> {
        let mut value = [zeroed::<V>()];
        // SAFETY: `open` compared the sizes.
        let found =
            unsafe { sys::lookup(self.handle.fd.as_fd(), bytes(&[index]), bytes_mut(&mut value)) }?;
        if found { Ok(value[0]) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Writes the element at `index`.
    pub fn set(&self, index: u32, value: &V) -> io::Result<()> {
        let value = std::slice::from_ref(value);
        // SAFETY: `open` compared the sizes.
        unsafe { sys::update(self.handle.fd.as_fd(), bytes(&[index]), bytes(value)) }
    }

    /// Removes the element at `index`; only maps of devices can.
    pub fn remove(&self, index: u32) -> io::Result<bool> {
        // SAFETY: `open` compared the sizes.
        unsafe { sys::delete(self.handle.fd.as_fd(), bytes(&[index])) }
    }

    /// Writes elements from `first` on.
    pub fn set_run(&self, first: u32, values: &[V]) -> io::Result<()> {
        if values.is_empty() {
            return Ok(()); // the kernel takes an empty batch for success, but why ask
        }
        let keys: Vec<u32> = (first..first + values.len() as u32).collect();
        // SAFETY: `open` compared the sizes; both slices have the same number of elements.
        unsafe {
            sys::update_batch(
                self.handle.fd.as_fd(),
                bytes(&keys),
                bytes(values),
                values.len() as u32,
            )
        }
    }

    /// All elements.
    pub fn all(&self) -> io::Result<Vec<V>> {
        let count = self.handle.capacity as usize;
        let mut keys = vec![0u32; count];
        let mut values = vec![zeroed::<V>(); count];
        // SAFETY: `open` compared the sizes, and the buffers hold the whole map.
        unsafe { read_all(&self.handle, bytes_mut(&mut keys), bytes_mut(&mut values)) }?;
        Ok(values)
    }
}

/// Reads a whole array.
///
/// # Safety
/// The buffers have room for all of it.
unsafe fn read_all(handle: &Handle, keys: &mut [u8], values: &mut [u8]) -> io::Result<()> {
    let mut cursor = [0u8; 8];
    // SAFETY: the caller's promise.
    let walked =
        unsafe { sys::walk(handle.fd.as_fd(), &mut cursor, false, keys, values, handle.capacity) }?;
    if walked.count == handle.capacity { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// An array with a copy of each element for each possible CPU.
pub struct PerCpu<V> {
    handle: Handle,
    cpus: usize,
    types: PhantomData<fn() -> V>,
}

impl<V: Pod> PerCpu<V> {
    /// Opens the map pinned at `dir/name`.
    pub fn open(dir: &Path, name: &str) -> anyhow::Result<Self> {
        // The kernel rounds each copy up to eight bytes; all values here are multiples of that.
        const { assert!(size_of::<V>().is_multiple_of(8)) };
        let handle = Handle::open(dir, name, size_of::<u32>(), size_of::<V>())?;
        let cpus = aya::util::nr_cpus()
            .map_err(|(path, error)| anyhow::anyhow!("cannot read {path}: {error}"))?;
        Ok(Self { handle, cpus, types: PhantomData })
    }

    /// The copies of the element at `index`.
    pub fn get(&self, index: u32) -> io::Result<Vec<V>> {
        let mut values = vec![zeroed::<V>(); self.cpus];
        // SAFETY: `open` compared the sizes, and there is a value for each possible CPU.
        let found = unsafe {
            sys::lookup(self.handle.fd.as_fd(), bytes(&[index]), bytes_mut(&mut values))
        }?;
        if found { Ok(values) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Writes zeros to all copies of the element at `index`.
    pub fn clear(&self, index: u32) -> io::Result<()> {
        let values = vec![zeroed::<V>(); self.cpus];
        // SAFETY: as in `get`.
        unsafe { sys::update(self.handle.fd.as_fd(), bytes(&[index]), bytes(&values)) }
    }
}
