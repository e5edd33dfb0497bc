//! The lab's kernel: Debian's cloud kernel, downloaded and unpacked into the cache, never installed.
//!
//! It has virtio (PCI), virtio-fs and the virtio console built in, so that it boots from a shared directory without an
//! initramfs, and `kvm-amd`, `overlay`, `tun` and `vhost_vsock` as modules.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::process;
use crate::step::step;

/// The package that is taken if apt offers it; else the newest of its 6.12 siblings that apt does offer.
const PREFERRED: &str = "linux-image-6.12.117+deb12-cloud-amd64-unsigned";

/// A kernel and its modules in the cache.
pub(crate) struct LabKernel {
    /// Compressed kernel image.
    pub(crate) image: PathBuf,
    /// Directory that holds `lib/modules/<release>`, as `modprobe --dirname` takes it.
    pub(crate) modules_root: PathBuf,
}

impl LabKernel {
    /// Takes it from the cache, which is filled from apt first if need be.
    pub(crate) fn prepare(cache: &Path) -> anyhow::Result<Self> {
        let directory = cache.join("lab-kernel");
        if let Some(kernel) = Self::newest_in(&directory)? {
            return Ok(kernel);
        }
        step("fetch the lab's kernel", || fetch(&directory))?;
        Self::newest_in(&directory)?.with_context(|| format!("no kernel in {} after unpacking", directory.display()))
    }

    fn newest_in(directory: &Path) -> anyhow::Result<Option<Self>> {
        let Ok(entries) = std::fs::read_dir(directory) else { return Ok(None) };
        let mut found: Vec<PathBuf> =
            entries.collect::<Result<Vec<_>, _>>()?.iter().map(|entry| entry.path()).collect();
        found.retain(|path| path.join("complete").exists());
        found.sort();
        let Some(root) = found.pop() else { return Ok(None) };
        Ok(Some(Self { image: sole_file(&root.join("boot"), "vmlinuz-")?, modules_root: root }))
    }
}

/// Downloads and unpacks the package beside its final place, which appears complete or not at all.
fn fetch(directory: &Path) -> anyhow::Result<()> {
    let (package, version) = choose()?;
    std::fs::create_dir_all(directory)?;
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(directory)?;
    process::run_quiet(
        Command::new("apt-get").args(["download", &format!("{package}={version}")]).current_dir(work.path()),
    )?;
    let archive = sole_file(work.path(), &package)?;
    let root = work.path().join("root");
    process::run_quiet(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&root))?;
    let release = sole_file(&root.join("lib/modules"), "")?;
    process::run_quiet(Command::new("depmod").arg("-b").arg(&root).arg(release.file_name().unwrap_or_default()))?;
    std::fs::write(root.join("complete"), format!("{package} {version}\n"))?;
    // apt has checked the archive against its signed lists, so name and version identify the content.
    let destination = directory.join(format!("{package}_{version}"));
    if let Err(error) = std::fs::rename(&root, &destination) {
        // Another lab may have been quicker with the same content.
        if !destination.join("complete").exists() {
            return Err(error).with_context(|| format!("cannot create {}", destination.display()));
        }
    }
    Ok(())
}

/// Name and version of the package to take.
fn choose() -> anyhow::Result<(String, String)> {
    if let Some(found) = newest_version(PREFERRED)? {
        return Ok((PREFERRED.to_owned(), found));
    }
    let names = process::output(Command::new("apt-cache").args(["pkgnames", "linux-image-6.12."]))?;
    let mut siblings: Vec<&str> =
        names.lines().filter(|name| name.ends_with("-cloud-amd64-unsigned") && !name.contains("-rt-")).collect();
    // Names differ only in the number after `6.12.`; longer is larger, then by digits.
    siblings.sort_by_key(|name| (name.len(), *name));
    for name in siblings.iter().rev() {
        if let Some(version) = newest_version(name)? {
            return Ok(((*name).to_owned(), version));
        }
    }
    bail!(
        "apt offers no linux-image-6.12.*-cloud-amd64-unsigned; run `apt-get update` with Debian's bookworm-security or \
         bookworm-backports among the sources"
    )
}

/// Newest version of `package` that apt can download, if any.
fn newest_version(package: &str) -> anyhow::Result<Option<String>> {
    let table = process::output(Command::new("apt-cache").args(["madison", package]))?;
    Ok(table.lines().find_map(|line| line.split('|').nth(1)).map(|version| version.trim().to_owned()))
}

fn sole_file(directory: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("{} holds no {prefix}*", directory.display())
}
