//! What a virtual machine boots: busybox, tools, modules, programs and objects, in an initramfs.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::kernels::Kernel;
use crate::workspace;

/// What the first process prints when all was run.
pub const DONE: &str = "@done";
/// The first process. What it prints about programs is read by `guest`.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
export RUST_BACKTRACE=1
";

/// What a machine has besides busybox.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// In `/programs`, under cargo's names.
    pub programs: &'a [PathBuf],
    /// This machine's, with their shared libraries, at their paths here.
    pub tools: &'a [&'a str],
    /// Inserted at the start, with those that they need.
    pub modules: &'a [&'a str],
    /// What the first process does when all is mounted.
    pub script: &'a str,
}

/// Makes the initramfs for a kernel.
///
/// # Errors
/// A file is missing, or cpio fails.
pub fn build(kernel: &Kernel, contents: Contents, directory: &Path) -> Result<PathBuf> {
    let tree = directory.join(format!("image-{}", kernel.name));
    for place in ["bin", "modules", "programs", "run"] {
        fs::create_dir_all(tree.join(place))?;
    }
    copy(Path::new("/bin/busybox"), &tree.join("bin/busybox"))?;
    symlink("busybox", tree.join("bin/sh"))?;
    for tool in contents.tools {
        with_libraries(Path::new(tool), &tree)?;
    }
    // The programs look for objects where they lie on this machine.
    let root = tree.join(workspace::root().strip_prefix("/")?);
    fs::create_dir_all(root.join("tests"))?;
    for entry in fs::read_dir(workspace::bpf_objects())? {
        let entry = entry?;
        copy(&entry.path(), &root.join("target/bpf").join(entry.file_name()))?;
    }
    let mut init = INIT.to_owned();
    let mut inserted = Vec::new();
    for name in contents.modules {
        insert(kernel, name, &tree.join("modules"), &mut inserted)?;
    }
    for name in inserted {
        init += &format!("insmod /modules/{name}.ko\n");
    }
    for program in contents.programs {
        libraries(program, &tree)?;
        strip(program, &tree.join("programs").join(program_name(program)))?;
    }
    init += contents.script;
    init += &format!("echo {DONE}\npoweroff -f\n");
    let path = tree.join("init");
    fs::write(&path, init)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    pack(&tree, &directory.join(format!("image-{}.cpio", kernel.name)))
}

/// Copies a module after those that it names as needed; one without a file is built in.
fn insert(kernel: &Kernel, name: &str, to: &Path, done: &mut Vec<String>) -> Result<()> {
    if done.iter().any(|other| other == name) {
        return Ok(());
    }
    let Some(module) = kernel.module(name)? else { return Ok(()) };
    let file = to.join(format!("{name}.ko"));
    unpack(&module, &file)?;
    for other in needs(&fs::read(&file)?) {
        insert(kernel, &other, to, done)?;
    }
    done.push(name.to_owned());
    Ok(())
}

/// What a module's `depends` names (section .modinfo: strings that end with a zero).
fn needs(module: &[u8]) -> Vec<String> {
    let field = module.split(|&byte| byte == 0).find_map(|text| text.strip_prefix(b"depends="));
    let text = String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
    text.split(',').filter(|name| !name.is_empty()).map(Into::into).collect()
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

/// A program without what is for debuggers, which is most of it.
fn strip(program: &Path, to: &Path) -> Result<()> {
    let status = Command::new("strip").arg("-o").arg(to).arg(program).status();
    if !status.context("cannot run strip")?.success() {
        bail!("{} could not be stripped", program.display());
    }
    Ok(())
}

/// A program and the shared libraries that `ldd` names.
fn with_libraries(program: &Path, tree: &Path) -> Result<()> {
    copy(program, &tree.join(program.strip_prefix("/")?))?;
    libraries(program, tree)
}

/// The shared libraries that `ldd` names.
fn libraries(program: &Path, tree: &Path) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_those_that_it_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=nf_tables,nf_nat\0name=nft_chain_nat\0";
        assert_eq!(needs(module), ["nf_tables", "nf_nat"]);
        assert!(needs(b"license=GPL\0depends=\0name=veth\0").is_empty());
    }
}
