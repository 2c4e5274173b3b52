//! Finds the eBPF object that `cargo xtask build-ebpf` made, for embedding.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let object = root.join("../target/bpf/medlb.bpf.o");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("medlb.bpf.o");
    println!("cargo:rerun-if-changed={}", object.display());
    if object.exists() {
        copy(&object, &out);
    } else {
        // An empty object keeps `cargo check`, clippy and editors working; `medlb run` says what
        // is missing.
        println!(
            "cargo:warning=no eBPF object yet: run `cargo xtask build-ebpf`, then build again"
        );
        fs::write(&out, []).expect("OUT_DIR is writable");
    }
}

fn copy(from: &Path, to: &Path) {
    if let Err(error) = fs::copy(from, to) {
        panic!("cannot copy {} to {}: {error}", from.display(), to.display());
    }
}
