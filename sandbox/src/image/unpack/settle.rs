//! Attributes for directories that a layer holds without an entry of their own.
//!
//! An overlay shows a directory with the attributes of its topmost layer. A layer with `tmp/x` but no `tmp` would so give
//! `/tmp` whatever we made up. It gets what the layers below show instead: that is why layers are stored by chain id.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    Gid, Mode, OFlags, Uid, XattrFlags, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, openat,
};
use rustix::io::Errno;

use super::path::EntryPath;
use super::tree::{OPAQUE_XATTR, times_of};

/// Most bytes of a directory's list of attributes, and of one value: the kernel's own limits.
const XATTR_MAX_BYTES: usize = 64 * 1024;

/// The directories of one layer that had no entry.
#[derive(Debug, Default)]
pub(crate) struct ImplicitDirs(pub(super) BTreeSet<EntryPath>);

/// What one layer shows of a path.
struct Shown {
    dir: Option<OwnedFd>,
    /// Nothing of the layers below shows there.
    covers: bool,
}

impl ImplicitDirs {
    /// Copies the attributes of the directories from `lower`, the contents of the layers below, bottom layer first.
    pub(crate) fn settle(&self, layer: &Path, lower: &[PathBuf]) -> std::io::Result<()> {
        // Parents sort before what they hold, so that times set below do not change those above: nothing is added here.
        for path in &self.0 {
            let own = show(layer, path)?;
            let (Some(dir), false) = (own.dir, own.covers) else { continue };
            for layer in lower.iter().rev() {
                let shown = show(layer, path)?;
                if let Some(model) = &shown.dir {
                    copy_attributes(model, &dir)?;
                }
                if shown.dir.is_some() || shown.covers {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn show(layer: &Path, path: &EntryPath) -> Result<Shown, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = rustix::fs::open(layer, flags, Mode::empty())?;
    let mut covers = false;
    for (depth, name) in path.components().enumerate() {
        // Opaque is said of what lies in a directory, not of the directory itself; the root's is known elsewhere.
        covers = covers || (depth > 0 && is_opaque(&dir)?);
        dir = match openat(&dir, name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(Shown { dir: None, covers }),
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Shown { dir: None, covers: true }),
            Err(errno) => return Err(errno),
        };
    }
    Ok(Shown { dir: Some(dir), covers })
}

fn is_opaque(dir: &OwnedFd) -> Result<bool, Errno> {
    let mut value = [0; 1];
    match fgetxattr(dir, OPAQUE_XATTR, &mut value) {
        Ok(length) => Ok(length == 1 && value == *b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let status = fstat(from)?;
    fchown(to, Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid)))?;
    let mut names = vec![0; XATTR_MAX_BYTES];
    let length = flistxattr(from, &mut names)?;
    for name in names.get(..length).unwrap_or_default().split(|byte| *byte == 0) {
        if name.starts_with(b"user.") {
            let mut value = vec![0; XATTR_MAX_BYTES];
            let length = fgetxattr(from, name, &mut value)?;
            fsetxattr(to, name, value.get(..length).unwrap_or_default(), XattrFlags::empty())?;
        }
    }
    fchmod(to, Mode::from_raw_mode(status.st_mode & 0o7777))?;
    futimens(to, &times_of(from.as_fd())?)
}
