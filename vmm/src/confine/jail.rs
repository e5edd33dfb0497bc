//! The mount namespace of a confined vmm; the picture is in the module above.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bulkhead_protocols::vm::Caching;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, move_mount,
    open_tree, unmount,
};
use rustix::process::{chdir, pivot_root};

use super::{ConfineError, share_root, step, sys};
use crate::config::{Entry, Share};

/// The directory of the runtime directory on which the new root is built; empty for everybody else.
const NEW_ROOT: &str = "root";
/// By which the file server opens again what it holds.
const DESCRIPTORS: &str = "/proc/self/fd";

/// Builds the new root, enters it, and lets go of the old one.
pub(super) fn enter(shares: &[Share], runtime_dir: &Path) -> Result<(), ConfineError> {
    step(sys::unshare_mounts(), || "make a mount namespace".to_owned())?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step(mount_change("/", private), || "make the mounts private".to_owned())?;

    // Clones of what is shared, taken while the host's tree is in sight.
    let entries = shares.iter().map(clone_entries).collect::<Result<Vec<_>, _>>()?;
    let runtime = step(clone_tree(runtime_dir), || format!("bind {}", runtime_dir.display()))?;
    // Not all of /proc, nor of /proc/self: the entries of processes and threads outside lead back there.
    let descriptors = step(clone_tree(Path::new(DESCRIPTORS)), || format!("bind {DESCRIPTORS}"))?;
    let mounts = step(clone_tree(Path::new("/proc/thread-self/mountinfo")), || "bind the list of mounts".to_owned())?;

    let new_root = runtime_dir.join(NEW_ROOT);
    step(make_directory(&new_root), || format!("create {}", new_root.display()))?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    step(mount("tmpfs", &new_root, "tmpfs", flags, Some(c"size=1m,mode=0755")), || "mount a tmpfs".to_owned())?;
    step(chdir(&new_root), || format!("enter {}", new_root.display()))?;
    step(pivot_root(".", "."), || "change the root".to_owned())?;
    step(unmount(".", UnmountFlags::DETACH), || "let go of the host's tree".to_owned())?;
    step(chdir("/"), || "enter the new root".to_owned())?;

    place(&descriptors, Path::new(DESCRIPTORS), true)?;
    place(&mounts, Path::new("/proc/self/mountinfo"), false)?;
    for (share, entries) in shares.iter().zip(entries) {
        place_entries(share, entries)?;
    }
    place(&runtime, runtime_dir, true)?;
    let root =
        step(openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()), || "open the new root".to_owned())?;
    step(sys::add_mount_attributes(root.as_fd(), libc::MOUNT_ATTR_RDONLY, false), || {
        "make the new root read-only".to_owned()
    })
}

fn clone_entries(share: &Share) -> Result<Vec<OwnedFd>, ConfineError> {
    share.entries.iter().map(|entry| clone_entry(share, entry)).collect()
}

fn clone_entry(share: &Share, entry: &Entry) -> Result<OwnedFd, ConfineError> {
    let named = || format!("bind {} for the share {:?}", entry.source.display(), share.tag);
    let tree = step(clone_tree(&entry.source), named)?;
    let mut attributes = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    if entry.read_only || share.caching == Caching::Immutable {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    step(sys::add_mount_attributes(tree.as_fd(), attributes, true), named)?;
    Ok(tree)
}

/// A detached copy of the mount at `path`, with what is mounted below it.
fn clone_tree(path: &Path) -> rustix::io::Result<OwnedFd> {
    open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE,
    )
}

fn place_entries(share: &Share, entries: Vec<OwnedFd>) -> Result<(), ConfineError> {
    let root = share_root(&share.tag);
    step(make_directories(&root), || format!("create {}", root.display()))?;
    for (entry, tree) in share.entries.iter().zip(entries) {
        let is_directory = std::fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&tree)))
            .map(|metadata| metadata.is_dir())
            .map_err(|source| ConfineError { step: format!("look at {}", entry.source.display()), source })?;
        place(&tree, &root.join(&entry.name), is_directory)?;
    }
    Ok(())
}

/// Mounts a detached tree at `path`, on a directory or a file made for it.
fn place(tree: &OwnedFd, path: &Path, is_directory: bool) -> Result<(), ConfineError> {
    let named = || format!("mount {}", path.display());
    if is_directory {
        step(make_directories(path), named)?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        step(openat(CWD, path, flags, Mode::RUSR), named)?;
    }
    step(move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH), named)
}

fn make_directories(path: &Path) -> rustix::io::Result<()> {
    if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("/") && !parent.as_os_str().is_empty()) {
        make_directories(parent)?;
    }
    make_directory(path)
}

fn make_directory(path: &Path) -> rustix::io::Result<()> {
    match mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}
