//! The guest's parts: kernel, agent and initramfs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::cargo;
use crate::packages;
use crate::paths::Paths;
use crate::process;
use crate::step::step;

const AGENT_TARGET: &str = "x86_64-unknown-linux-gnu";
const AGENT_PROFILE: &str = "guest";

/// A guest that can boot.
pub(crate) struct Guest {
    /// ELF kernel.
    pub(crate) vmlinux: PathBuf,
    /// Release of the kernel, as `uname -r` prints it.
    pub(crate) kernel_version: String,
    /// Archive with the agent.
    pub(crate) initramfs: PathBuf,
    /// What the archive holds, and the kernel beside it.
    pub(crate) manifest: rootfs_builder::Manifest,
}

/// Builds what is not up to date.
pub(crate) fn build(paths: &Paths) -> anyhow::Result<Guest> {
    let mut wanted = packages::GUEST.to_vec();
    wanted.extend(guest_kernel::compile::missing_packages());
    packages::ensure(&wanted)?;
    let kernel = step("guest kernel", || kernel(paths))?;
    let agent = step("agent, static", || agent(paths))?;
    let directory = paths.target.join("guest");
    let initramfs = directory.join("initramfs.cpio");
    let manifest = step("guest image (initramfs)", || {
        let mut manifest = rootfs_builder::initramfs(&agent, &initramfs)?;
        manifest.add_kernel(&kernel.version, &kernel.vmlinux)?;
        Ok(manifest)
    })?;
    Ok(Guest { vmlinux: kernel.vmlinux, kernel_version: kernel.version, initramfs, manifest })
}

fn kernel(paths: &Paths) -> anyhow::Result<guest_kernel::Kernel> {
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = guest_kernel::Options {
        cache: paths.cache.clone(),
        source: guest_kernel::source::Given::from_environment(),
        extra_fragments: Vec::new(),
        jobs,
        progress: &guest_kernel::print_to_stderr,
    };
    guest_kernel::build(&options).context("the guest kernel")
}

/// The agent has a target directory of its own: its flags differ, and would rebuild everything the host's crates share.
fn agent(paths: &Paths) -> anyhow::Result<PathBuf> {
    let directory = paths.target.join("guest");
    let mut build: Command = cargo::command(paths);
    build
        .args(["build", "--package", "agent", "--profile", AGENT_PROFILE, "--target", AGENT_TARGET, "--target-dir"])
        .arg(&directory)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    process::run(&mut build)?;
    Ok(directory.join(AGENT_TARGET).join(AGENT_PROFILE).join("agent"))
}

/// Prints what was built.
pub(crate) fn describe(guest: &Guest) {
    let size_kib = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len() / 1024);
    println!("kernel    {} {} KiB {}", guest.kernel_version, size_kib(&guest.vmlinux), guest.vmlinux.display());
    println!("initramfs {} KiB {}", size_kib(&guest.initramfs), guest.initramfs.display());
}
