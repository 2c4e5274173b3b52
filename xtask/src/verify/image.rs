//! What a virtual machine boots: busybox, iproute2, a module, the programs and the object, in an
//! initramfs.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::kernels::Kernel;
use crate::workspace;

/// The first process. What it prints about programs is read by `guest`.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do insmod $module; done
/usr/sbin/ip link set lo up
/usr/sbin/ip link add veth0 type veth peer name veth1
/usr/sbin/ip link set veth0 up
/usr/sbin/ip link set veth1 up
export RUST_BACKTRACE=1
";

/// Makes the initramfs for a kernel.
///
/// # Errors
/// A file is missing, or cpio fails.
pub fn build(kernel: &Kernel, programs: &[PathBuf], directory: &Path) -> Result<PathBuf> {
    let tree = directory.join(format!("image-{}", kernel.name));
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    for place in ["bin", "modules", "programs"] {
        fs::create_dir_all(tree.join(place))?;
    }
    copy(Path::new("/bin/busybox"), &tree.join("bin/busybox"))?;
    symlink("busybox", tree.join("bin/sh"))?;
    with_libraries(Path::new("/usr/sbin/ip"), &tree)?;
    if let Some(module) = kernel.module("veth")? {
        unpack(&module, &tree.join("modules/veth.ko"))?;
    }
    // The programs look for the object where it lies on this machine.
    let root = tree.join(workspace::root().strip_prefix("/")?);
    fs::create_dir_all(root.join("tests"))?;
    let object = root.join("target/bpf/medlb.bpf.o");
    copy(&workspace::bpf_objects().join("medlb.bpf.o"), &object)?;
    let mut init = INIT.to_owned();
    for (i, program) in programs.iter().enumerate() {
        let name = program_name(program);
        copy(program, &tree.join("programs").join(&name))?;
        let object = workspace::bpf_objects().join("medlb.bpf.o");
        let arguments = match i {
            0 => format!("{} --attach veth0", object.display()),
            _ => "--test-threads=1".into(),
        };
        init += &format!("echo @begin {name}\n/programs/{name} {arguments} 2>&1\n");
        init += &format!("echo @end {name} $?\n");
    }
    init += "poweroff -f\n";
    let path = tree.join("init");
    fs::write(&path, init)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    pack(&tree, &directory.join(format!("image-{}.cpio", kernel.name)))
}

/// Cargo's name of a program, without its hash.
pub fn program_name(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.split('-').next().unwrap_or_default().to_owned()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display())).map(drop)
}

/// A program and the shared libraries that `ldd` names.
fn with_libraries(program: &Path, tree: &Path) -> Result<()> {
    copy(program, &tree.join(program.strip_prefix("/")?))?;
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(path), &tree.join(&path[1..]))?;
    }
    Ok(())
}

/// A module, uncompressed.
fn unpack(module: &Path, to: &Path) -> Result<()> {
    let tool = match module.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return copy(module, to),
    };
    let file = File::create(to)?;
    let status = Command::new(tool).arg("-dc").arg(module).stdout(file).status();
    if !status.with_context(|| format!("cannot run {tool}"))?.success() {
        bail!("{} could not be decompressed", module.display());
    }
    Ok(())
}

fn pack(tree: &Path, to: &Path) -> Result<PathBuf> {
    let mut list =
        Command::new("find").arg(".").current_dir(tree).stdout(Stdio::piped()).spawn()?;
    let names = list.stdout.take().context("find has no output")?;
    let status = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet"])
        .current_dir(tree)
        .stdin(names)
        .stdout(File::create(to)?)
        .status()
        .context("cannot run cpio")?;
    if !list.wait()?.success() || !status.success() {
        bail!("{} could not be packed", tree.display());
    }
    Ok(to.to_owned())
}
