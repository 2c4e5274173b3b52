//! Where things are.

use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Where cargo builds: `CARGO_TARGET_DIR` does not apply, because lb-userspace/build.rs looks here
/// for the eBPF object.
pub fn target() -> PathBuf {
    root().join("target")
}

/// eBPF objects, one for each binary of lb-ebpf.
pub fn bpf_objects() -> PathBuf {
    target().join("bpf")
}

/// Tools that setup installed for this checkout only.
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// The virtual environment with the tests' Python packages.
pub fn venv() -> PathBuf {
    target().join("venv")
}
