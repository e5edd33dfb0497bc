//! The guest's root directory.
//!
//! The kernel unpacks the initramfs into `rootfs`, which cannot be pivoted away from; a container's helper has to pivot. So
//! the agent puts an empty tmpfs over it and moves in. Its own program stays below: out of every path, on a mount that is
//! read-only, so that no container can write to it through `/proc/PID/exe`.

use std::os::fd::OwnedFd;

use anyhow::Context;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, mount, mount_move, mount_remount};

/// Where the new root is mounted for a moment.
const NEW_ROOT: &str = "/root";

/// Opens the program that runs, to be executed again as a helper.
pub(super) fn open_own_program() -> anyhow::Result<OwnedFd> {
    rustix::fs::open(crate::INIT_NAME, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("open {}", crate::INIT_NAME))
}

/// Puts the tmpfs over the root and makes the mount points of a guest in it.
pub(super) fn enter_tmpfs_root() -> anyhow::Result<()> {
    match rustix::fs::mkdir(NEW_ROOT, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error).with_context(|| format!("make {NEW_ROOT}")),
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("root", NEW_ROOT, "tmpfs", flags, Some(c"mode=0755")).with_context(|| format!("mount {NEW_ROOT}"))?;
    for (name, mode) in [("dev", 0o755), ("proc", 0o555), ("sys", 0o555), ("run", 0o755), ("tmp", 0o1777)] {
        let path = format!("{NEW_ROOT}/{name}");
        rustix::fs::mkdirat(CWD, &path, Mode::from_raw_mode(mode)).with_context(|| format!("make {path}"))?;
    }
    rustix::fs::chmodat(CWD, format!("{NEW_ROOT}/tmp"), Mode::from_raw_mode(0o1777), rustix::fs::AtFlags::empty())
        .context("open /tmp to everybody")?;
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"").context("make the initramfs read-only")?;
    rustix::process::chdir(NEW_ROOT).context("change to the new root")?;
    mount_move(".", "/").context("move the new root into place")?;
    rustix::process::chroot(".").context("enter the new root")
}
