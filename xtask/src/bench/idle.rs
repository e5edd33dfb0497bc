//! The guest image of a guest that does nothing: what the kernel alone costs.

use std::path::PathBuf;
use std::process::Command;

use crate::packages;
use crate::paths::Paths;
use crate::process;

/// End of the line that the console shows before it sleeps.
pub(super) const IDLE_LINE: &str = "init sleeps";
/// Words for the end of the kernel's command line that make it restart the guest instead.
pub(super) const RESTART: &str = "-- restart";

/// Assembles it and packs it as the agent is packed.
pub(super) fn initramfs(paths: &Paths) -> anyhow::Result<PathBuf> {
    packages::ensure(&["gcc"])?;
    let directory = paths.target.join("bench");
    std::fs::create_dir_all(&directory)?;
    let program = directory.join("idle_init");
    let mut assemble = Command::new("gcc");
    assemble.args(["-nostdlib", "-static", "-Wl,--build-id=none", "-o"]).arg(&program);
    assemble.arg(paths.root.join("xtask/src/bench/idle_init.S"));
    process::run_quiet(&mut assemble)?;
    let archive = directory.join("idle.cpio");
    rootfs_builder::initramfs(&program, &archive)?;
    Ok(archive)
}
