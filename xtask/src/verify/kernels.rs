//! Kernels from Debian, through an apt directory of our own: the host's package lists, sources and
//! boot loader are left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::directory;
use crate::progress;

/// What each kernel is called here, oldest first.
pub const NAMES: [&str; 3] = ["6.1", "6.12", "newest"];
/// Package names, as apt-cache searches them: Debian 12's, Debian 12's backport of Debian 13's, and
/// the newest that Debian has for a release.
const PATTERNS: [&str; 3] = [
    r"^linux-image-6\.1\.0-[0-9]+-cloud-amd64$",
    r"^linux-image-6\.12\.[0-9]+\+deb12-cloud-amd64$",
    r"^linux-image-[0-9.]+\+deb13-cloud-amd64$",
];
const SUITES: [&str; 3] = [
    "http://deb.debian.org/debian bookworm main",
    "http://deb.debian.org/debian-security bookworm-security main",
    "http://deb.debian.org/debian trixie-backports main",
];
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Package lists older than this are fetched anew.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// One of [`NAMES`].
    pub name: String,
    /// As `uname -r` says.
    pub release: String,
    /// Where its package is unpacked.
    pub root: PathBuf,
}

impl Kernel {
    /// The bootable file.
    ///
    /// # Errors
    /// The package is not unpacked, or has none.
    pub fn image(&self) -> Result<PathBuf> {
        let mut found = Vec::new();
        find(&self.root, "vmlinuz", &mut found)?;
        found.pop().with_context(|| format!("no vmlinuz in {}", self.root.display()))
    }

    /// The file of a module that needs no other; none if it is built in.
    ///
    /// # Errors
    /// The package is not unpacked.
    pub fn module(&self, name: &str) -> Result<Option<PathBuf>> {
        let mut found = Vec::new();
        find(&self.root, &format!("{name}.ko"), &mut found)?;
        Ok(found.pop())
    }
}

/// All files below `directory` whose name begins so.
fn find(directory: &Path, name: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), name, found)?;
        } else if entry.file_name().to_string_lossy().starts_with(name) {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// Finds those kernels that are wanted; downloads and unpacks what is missing.
///
/// # Errors
/// Debian's archive cannot be reached and a kernel is not there yet.
pub fn find_all(wanted: impl Fn(&str) -> bool) -> Result<Vec<Kernel>> {
    let apt = Apt::new()?;
    let names = NAMES.iter().zip(PATTERNS).filter(|(name, _)| wanted(name));
    names.map(|(name, pattern)| apt.kernel(name, pattern)).collect()
}

/// An apt directory.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new() -> Result<Self> {
        let root = directory().join("apt");
        for place in ["etc/none", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(place))?;
        }
        let sources = root.join("etc/sources.list");
        let text: String =
            SUITES.iter().map(|suite| format!("deb [signed-by={KEYS}] {suite}\n")).collect();
        let changed = fs::read_to_string(&sources).ok().as_ref() != Some(&text);
        fs::write(&sources, text)?;
        let root = root.display();
        let options = [
            format!("Dir::Etc={root}/etc"),
            format!("Dir::Etc::sourcelist={root}/etc/sources.list"),
            format!("Dir::Etc::sourceparts={root}/etc/none"),
            format!("Dir::State={root}/state"),
            format!("Dir::Cache={root}/cache"),
            "APT::Architecture=amd64".into(),
            "APT::Sandbox::User=".into(),
            "Acquire::Languages=none".into(),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".into(), option]).collect();
        let apt = Self { options };
        apt.update(changed)?;
        Ok(apt)
    }

    /// Fetches the package lists, if they are old. Without the archive, old ones must do.
    fn update(&self, changed: bool) -> Result<()> {
        let stamp = directory().join("apt/updated");
        let age =
            fs::metadata(&stamp).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if !changed && age.is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        let mut update = Command::new("apt-get");
        update.args(&self.options).arg("update");
        match progress::step("verify-apt", "Debian's lists of kernels", &mut update) {
            Ok(()) => Ok(fs::write(&stamp, "")?),
            Err(error) if age.is_some() => {
                eprintln!("  the lists of {} are used: {error:#}", stamp.display());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn kernel(&self, name: &str, pattern: &str) -> Result<Kernel> {
        let package = self.search(pattern)?.into_iter().max_by_key(|name| numbers(name));
        let package = package.with_context(|| format!("Debian's lists have no {pattern}"))?;
        let release = package.strip_prefix("linux-image-").unwrap_or(&package).to_owned();
        let root = directory().join("kernels").join(&package);
        let kernel = Kernel { name: name.into(), release, root };
        if kernel.image().is_err() {
            // From 7.1 on the kernel and its modules are packages of their own.
            let exact = kernel.release.replace('.', r"\.").replace('+', r"\+");
            let packages = self.search(&format!("^linux-(image|binary|modules)-{exact}$"))?;
            self.unpack(&kernel, &packages)?;
        }
        kernel.image()?;
        Ok(kernel)
    }

    fn unpack(&self, kernel: &Kernel, packages: &[String]) -> Result<()> {
        let downloads = directory().join("debs");
        fs::create_dir_all(&downloads)?;
        let mut download = Command::new("apt-get");
        download.args(&self.options).arg("download").args(packages).current_dir(&downloads);
        let what = format!("download Linux {}", kernel.release);
        progress::step(&format!("verify-{}", kernel.name), &what, &mut download)?;
        // Only whole: what was interrupted is not taken for a kernel.
        let partial = PathBuf::from(format!("{}.partial", kernel.root.display()));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        for package in packages {
            let mut found = Vec::new();
            find(&downloads, &format!("{package}_"), &mut found)?;
            let file = found.pop().with_context(|| format!("no {package} in target/vm/debs"))?;
            let status = Command::new("dpkg").arg("-x").arg(file).arg(&partial).status();
            if !status.context("cannot run dpkg")?.success() {
                bail!("{package} could not be unpacked to {}", partial.display());
            }
        }
        if kernel.root.exists() {
            fs::remove_dir_all(&kernel.root)?;
        }
        Ok(fs::rename(&partial, &kernel.root)?)
    }

    /// Names of packages.
    fn search(&self, pattern: &str) -> Result<Vec<String>> {
        let output = Command::new("apt-cache")
            .args(&self.options)
            .args(["search", "--names-only", pattern])
            .output()
            .context("cannot run apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().filter_map(|l| l.split_whitespace().next()).map(Into::into).collect())
    }
}

/// The numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let old = numbers("linux-image-6.12.9+deb13-cloud-amd64");
        assert!(old < numbers("linux-image-6.12.12+deb13-cloud-amd64"));
        assert!(old < numbers("linux-image-7.2.6+deb13-cloud-amd64"));
    }
}
