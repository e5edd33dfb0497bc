//! Paths that a container shall not see (`linux.maskedPaths`) or not change (`linux.readonlyPaths`).

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use super::report::{Doing, Failure};
use super::resolve::Root;
use super::rootfs::{attach_to, clone_tree};
use crate::sys::mount_attr::{MountChange, change_mount};

/// Covers each path: a directory by an empty read-only tmpfs (one for all), anything else by the guest's `/dev/null`.
/// A path that does not exist needs no cover.
pub(super) fn mask(root: &Root, paths: &[String]) -> Result<(), Failure> {
    let mut empty = None;
    for path in paths {
        let what = || format!("linux.maskedPaths: {path:?}");
        let Some(place) = locate_existing(root, path).asked(what)? else { continue };
        let stat = rustix::fs::fstat(&place).doing(what)?;
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            // Only an attached mount can be cloned: the first place gets the original, the others get clones of it.
            match &empty {
                Some(first) => clone_tree(first, false).doing(what)?,
                None => {
                    let first = empty_directory().doing(what)?;
                    empty = Some(rustix::io::dup(&first).doing(what)?);
                    first
                }
            }
        } else {
            let null = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(what)?;
            clone_tree(&null, false).doing(what)?
        };
        attach_to(&cover, &place).doing(what)?;
    }
    Ok(())
}

/// Puts a read-only view of each path over itself.
pub(super) fn make_read_only(root: &Root, paths: &[String]) -> Result<(), Failure> {
    for path in paths {
        let what = || format!("linux.readonlyPaths: {path:?}");
        let Some(place) = locate_existing(root, path).asked(what)? else { continue };
        let view = clone_tree(&place, true).doing(what)?;
        change_mount(&view, MountChange::set(libc::MOUNT_ATTR_RDONLY), true).doing(what)?;
        attach_to(&view, &place).doing(what)?;
    }
    Ok(())
}

fn locate_existing(root: &Root, path: &str) -> Result<Option<OwnedFd>, Errno> {
    match root.locate(path) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

fn empty_directory() -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", "0"), ("nr_inodes", "1"), ("mode", "0755")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}
