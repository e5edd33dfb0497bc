//! Staging an installation: `target/dist/{bin/sandbox, lib/bulkhead/{vmm, vmlinux, initramfs.cpio, manifest.json}}`.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cargo;
use crate::guest::{self, Guest};
use crate::paths::Paths;
use crate::process;
use crate::step::step;

/// A staged installation.
pub(crate) struct Dist {
    /// The prefix; `bin/sandbox` is below it.
    pub(crate) prefix: PathBuf,
    /// The guest in it.
    pub(crate) guest: Guest,
}

impl Dist {
    /// The `sandbox` command.
    pub(crate) fn sandbox(&self) -> PathBuf {
        self.prefix.join("bin/sandbox")
    }
}

/// Builds everything that is installed, optimized, and stages it.
pub(crate) fn build(paths: &Paths) -> anyhow::Result<Dist> {
    let guest = guest::build(paths)?;
    step("vmm and sandbox, optimized", || {
        process::run(cargo::command(paths).args(["build", "--release", "--package", "vmm", "--package", "sandbox"]))
    })?;
    let prefix = paths.target.join("dist");
    step("stage the installation", || {
        let (bin, lib) = (prefix.join("bin"), prefix.join("lib/bulkhead"));
        std::fs::create_dir_all(&bin)?;
        std::fs::create_dir_all(&lib)?;
        let release = paths.target.join("release");
        install(&release.join("sandbox"), &bin.join("sandbox"))?;
        install(&release.join("vmm"), &lib.join("vmm"))?;
        install(&guest.vmlinux, &lib.join("vmlinux"))?;
        install(&guest.initramfs, &lib.join("initramfs.cpio"))?;
        guest.manifest.write(&lib).context("manifest.json")
    })?;
    Ok(Dist { prefix, guest })
}

/// Copies a file over another in one step: a sandbox that runs keeps the file it has open.
fn install(from: &Path, to: &Path) -> anyhow::Result<()> {
    let temporary = to.with_extension("new");
    std::fs::copy(from, &temporary)
        .and_then(|_| std::fs::rename(&temporary, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
