//! The container's root file system: an overlay or a directory, mounted where only this mount namespace sees it, and the
//! move into it.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::report::{Doing, Failure};
use super::resolve::Root;
use crate::plan::{RootfsPlan, RootfsSource, UpperLayer};
use crate::storage::{CONTAINER_ROOT_DIR, SHARES_ROOT};
use crate::sys::mount_attr::{MountChange, change_mount};

/// Mounts the root file system at [`CONTAINER_ROOT_DIR`] of this mount namespace.
pub(super) fn mount_root(plan: &RootfsPlan) -> Result<Root, Failure> {
    let mount = match &plan.source {
        RootfsSource::Directory(path) => {
            let directory = open_guest_path(path).asked(|| format!("rootfs.directory {path:?}"))?;
            clone_tree(&directory, true).doing(|| format!("rootfs.directory {path:?}: clone its mounts"))?
        }
        RootfsSource::Overlay { lower, upper } => mount_overlay(lower, upper)?,
    };
    attach_to_path(&mount, CONTAINER_ROOT_DIR).doing(|| "attach the root file system".into())?;
    Ok(Root::new(mount))
}

/// Makes `root` this process's root directory and lets go of the guest's.
pub(super) fn enter(root: &Root, plan: &RootfsPlan) -> Result<(), Failure> {
    let directory = root.directory();
    rustix::process::fchdir(directory).doing(|| "change to the root file system".into())?;
    // Both names are the same directory: the old root ends up mounted on top of the new one, and is taken off at once.
    rustix::process::pivot_root(".", ".").doing(|| "pivot into the root file system".into())?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).doing(|| "let go of the guest's root".into())?;
    rustix::process::chdir("/").doing(|| "change to /".into())?;
    if plan.read_only {
        let change = MountChange::set(libc::MOUNT_ATTR_RDONLY);
        change_mount(directory, change, false).doing(|| "make the root file system read-only".into())?;
    }
    if let Some(propagation) = plan.propagation {
        let change = MountChange { propagation: propagation.flag, ..MountChange::default() };
        change_mount(directory, change, propagation.recursive).doing(|| "linux.rootfsPropagation".into())?;
    }
    Ok(())
}

/// Opens a path of the guest. What lies in a share was made on the host by whoever fills it, so a look-up there does not
/// leave the share by `..`, links or other mounts' magic; elsewhere the tree is the agent's own.
pub(super) fn open_guest_path(path: &str) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let inside = path.strip_prefix(SHARES_ROOT).and_then(|rest| rest.strip_prefix('/'));
    let Some((tag, entry)) = inside.map(|rest| rest.split_once('/').unwrap_or((rest, "."))) else {
        return rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
    };
    let share =
        rustix::fs::open(format!("{SHARES_ROOT}/{tag}"), flags | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    let entry = if entry.is_empty() { "." } else { entry };
    rustix::fs::openat2(&share, entry, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

/// A detached copy of the mount at `place`, with those below it if `recursive`.
pub(super) fn clone_tree(place: &OwnedFd, recursive: bool) -> Result<OwnedFd, rustix::io::Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(place, "", flags)
}

/// Puts a detached mount on the directory or file that `place` refers to.
pub(super) fn attach_to(mount: &OwnedFd, place: &OwnedFd) -> Result<(), rustix::io::Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

/// Puts a detached mount on a path of the guest.
pub(super) fn attach_to_path(mount: &OwnedFd, path: &str) -> Result<(), rustix::io::Errno> {
    move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn mount_overlay(lower: &[String], upper: &UpperLayer) -> Result<OwnedFd, Failure> {
    let upper = upper_directory(upper)?;
    let part = |name: &str| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&upper, name, flags, Mode::empty()).doing(|| format!("open the overlay's {name} directory"))
    };
    let (upper_dir, work_dir) = (part("upper")?, part("work")?);
    let mut layers = Vec::with_capacity(lower.len());
    for path in lower {
        layers.push(open_guest_path(path).asked(|| format!("rootfs.overlay.lower {path:?}"))?);
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).doing(|| "prepare an overlay".into())?;
    fsconfig_set_string(&context, "source", "overlay").doing(|| "name the overlay".into())?;
    let set = |key: &str, fd: &OwnedFd| {
        // By descriptor, so that the directory is the one that was checked, and a long path is no matter.
        fsconfig_set_string(&context, key, format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .doing(|| format!("set the overlay's {key}"))
    };
    for layer in &layers {
        set("lowerdir+", layer)?;
    }
    set("upperdir", &upper_dir)?;
    set("workdir", &work_dir)?;
    // The writable layer lives no longer than the VM: nothing is gained by making it survive a crash.
    fsconfig_set_flag(&context, "volatile").doing(|| "set the overlay's volatile".into())?;
    fsconfig_create(&context).doing(|| format!("mount an overlay of {} layers", layers.len()))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).doing(|| "mount the overlay".into())
}

/// A directory with `upper` and `work` in it.
fn upper_directory(upper: &UpperLayer) -> Result<OwnedFd, Failure> {
    match upper {
        UpperLayer::Scratch(path) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::open(path.as_str(), flags, Mode::empty()).doing(|| format!("open {path}"))
        }
        UpperLayer::Memory => {
            let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).doing(|| "prepare a tmpfs".into())?;
            fsconfig_set_string(&context, "mode", "0755").doing(|| "set the tmpfs' mode".into())?;
            fsconfig_create(&context).doing(|| "make a tmpfs for the writable layer".into())?;
            let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
                .doing(|| "mount a tmpfs for the writable layer".into())?;
            // An overlay accepts only directories of an attached mount; the overlay then covers this one.
            attach_to_path(&mount, CONTAINER_ROOT_DIR).doing(|| "attach the tmpfs".into())?;
            for name in ["upper", "work"] {
                rustix::fs::mkdirat(&mount, name, Mode::from_raw_mode(0o755)).doing(|| format!("make {name}"))?;
            }
            Ok(mount)
        }
    }
}
