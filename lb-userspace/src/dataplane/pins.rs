//! What lies under `pin_dir`: `maps/NAME`, `links/INTERFACE`, `prog`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::sys;

/// The paths.
#[derive(Clone, Debug)]
pub struct Pins {
    /// `pin_dir` itself.
    pub root: PathBuf,
    /// Maps by name.
    pub maps: PathBuf,
    /// Links by interface.
    pub links: PathBuf,
    /// The program.
    pub program: PathBuf,
}

impl Pins {
    /// Under `pin_dir`.
    pub fn new(pin_dir: &Path) -> Self {
        Self {
            root: pin_dir.to_owned(),
            maps: pin_dir.join("maps"),
            links: pin_dir.join("links"),
            program: pin_dir.join("prog"),
        }
    }

    /// Makes the directories.
    pub fn create(&self) -> anyhow::Result<()> {
        for dir in [&self.maps, &self.links] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        Ok(())
    }

    /// Where the link of an interface is pinned.
    pub fn link(&self, interface: &str) -> PathBuf {
        self.links.join(escape(interface))
    }

    /// Detaches the program from an interface and removes the link.
    pub fn detach(&self, interface: &str) -> anyhow::Result<()> {
        let path = self.link(interface);
        // An interface that is gone has nothing to detach from, and without the pin the kernel
        // lets go of the link in any case.
        let _ = sys::detach(&path);
        unlink(&path).map(|_| ())
    }

    /// Names of the interfaces whose links are pinned, sorted.
    pub fn linked(&self) -> io::Result<Vec<String>> {
        Ok(list(&self.links)?.iter().map(|name| unescape(name)).collect())
    }

    /// Detaches and removes everything; returns what it removed, in words. Does nothing where there
    /// is nothing.
    pub fn remove(&self) -> anyhow::Result<Vec<String>> {
        let mut removed = Vec::new();
        // Links first: no packet may meet a program whose maps are going away.
        for interface in self.linked().context("cannot list pinned links")? {
            self.detach(&interface)?;
            removed.push(format!("XDP program on {interface}"));
        }
        if unlink(&self.program)? {
            removed.push(format!("program {}", self.program.display()));
        }
        let maps = list(&self.maps).context("cannot list pinned maps")?;
        for name in &maps {
            unlink(&self.maps.join(name))?;
        }
        if !maps.is_empty() {
            removed.push(format!("{} maps in {}", maps.len(), self.maps.display()));
        }
        for dir in [&self.links, &self.maps, &self.root] {
            match fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Somebody else's files are in it: theirs to remove.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                // `pin_dir` may be the mount point.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
                }
            }
        }
        Ok(removed)
    }
}

/// Removes a pin; `false`: there was none.
pub fn unlink(path: &Path) -> anyhow::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

fn list(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// A bpffs refuses names with dots, which names of VLAN interfaces have.
fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2E")
}

fn unescape(name: &str) -> String {
    name.replace("%2E", ".").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_survive() {
        for name in ["eth0", "eth0.100", "a%2Eb", "%.%"] {
            assert!(!escape(name).contains('.'));
            assert_eq!(unescape(&escape(name)), name);
        }
    }
}
