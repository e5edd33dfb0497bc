//! The directory a layer is unpacked into. Every path is walked from its root by openat2(2), so that no symlink of the
//! layer, whatever it points to, leads anywhere else.
//!
//! State: the directory that the last entry was made in stays open, since entries of one directory follow each other. It
//! remembers the directory's times, which every new entry changes, and puts them back when it is closed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown,
    fsetxattr, fstat, futimens, mkdirat, openat2, statat, unlinkat,
};
use rustix::io::Errno;

use super::super::excerpt::excerpt_bytes;
use super::error::{EntryProblem, UnpackError, is_disk_full};
use super::limits::Budget;
use super::path::{DEPTH_MAX, EntryPath};

/// Directories without an entry of their own that are remembered; more are a sign of malice.
const IMPLICIT_MAX: usize = 65_536;

/// Says to the guest's overlay that nothing of lower layers shows through a directory.
pub(super) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
/// No symlink at all: the ordinary case.
const STRICT: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// Symlinks count from the layer's root, as they would in the container.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// What stands where an entry is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Nothing, or nothing any more.
    Free,
    /// A directory, for an entry that is one too.
    Directory,
    /// There was a whiteout of this layer: what is made now must not show what lies below.
    Whiteout,
}

/// An open directory of the layer.
struct OpenDir {
    path: EntryPath,
    fd: OwnedFd,
    times: Timestamps,
}

impl Drop for OpenDir {
    fn drop(&mut self) {
        // A directory that is gone, or a disk that fails: the times are the least of it.
        let _ = futimens(&self.fd, &self.times);
    }
}

/// The directory a layer is unpacked into.
pub(super) struct Tree {
    root: OwnedFd,
    open: Option<OpenDir>,
    /// Directories made only because something lies in them; their attributes come from lower layers later.
    implicit: BTreeSet<EntryPath>,
    pub(super) budget: Budget,
}

impl Tree {
    /// `root` is an empty directory.
    pub(super) fn new(root: OwnedFd, budget: Budget) -> Self {
        Self { root, open: None, implicit: BTreeSet::new(), budget }
    }

    /// Ends the work: puts back the last times, and gives the directories that had no entry of their own.
    pub(super) fn finish(mut self) -> BTreeSet<EntryPath> {
        self.open = None;
        std::mem::take(&mut self.implicit)
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Forgets the open directory, because an entry may be about to replace it or to set its times.
    pub(super) fn close_dir(&mut self) {
        self.open = None;
    }

    /// The directory has an entry of its own after all.
    pub(super) fn is_explicit(&mut self, path: &EntryPath) {
        self.implicit.remove(path);
    }

    /// Opens the directory `path`, making what is missing of it.
    pub(super) fn dir(&mut self, path: &EntryPath) -> Result<BorrowedFd<'_>, UnpackError> {
        if self.open.as_ref().is_none_or(|open| open.path != *path) {
            self.open = None;
            let fd = self.open_or_make(path)?;
            let times = times_of(fd.as_fd()).map_err(|errno| self.failed("read the times of", path, errno))?;
            self.open = Some(OpenDir { path: path.clone(), fd, times });
        }
        match &self.open {
            Some(open) => Ok(open.fd.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    /// Opens the directory `path` if the layer has it; a symlink on the way is followed within the layer.
    pub(super) fn existing_dir(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        let below = if path.is_root() { b"." } else { path.as_bytes() };
        match openat2(&self.root, below, DIRECTORY, Mode::empty(), STRICT) {
            Err(Errno::LOOP) => openat2(&self.root, below, DIRECTORY, Mode::empty(), IN_ROOT),
            other => other,
        }
    }

    fn open_or_make(&mut self, path: &EntryPath) -> Result<OwnedFd, UnpackError> {
        let below = if path.is_root() { b"." } else { path.as_bytes() };
        match openat2(&self.root, below, DIRECTORY, Mode::empty(), STRICT) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => self.walk_and_make(path),
            Err(errno) => Err(self.failed("open the directory", path, errno)),
        }
    }

    /// The slow way, component by component.
    fn walk_and_make(&mut self, path: &EntryPath) -> Result<OwnedFd, UnpackError> {
        let mut walked = EntryPath::default();
        let mut fd = openat2(&self.root, ".", DIRECTORY, Mode::empty(), STRICT)
            .map_err(|errno| self.failed("open the directory", path, errno))?;
        let mut depth = 0;
        for name in path.components() {
            walked = walked.join(name);
            depth += 1;
            fd = match openat2(&fd, name, DIRECTORY, Mode::empty(), STRICT) {
                Ok(next) => next,
                Err(Errno::NOENT) => self.make_implicit(fd.as_fd(), name, &walked, false)?,
                // Depending on the kernel's order of checks, a symlink is one or the other.
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let next = self.step_through(fd.as_fd(), name, &walked, path)?;
                    depth = depth_of(next.as_fd(), self.root.as_fd()).unwrap_or(DEPTH_MAX);
                    next
                }
                Err(errno) => return Err(self.failed("open the directory", path, errno)),
            };
            // Through symlinks a tree could grow deeper than any single name says.
            if depth >= DEPTH_MAX {
                return Err(UnpackError::entry(path.as_bytes(), EntryProblem::TooDeep { limit: DEPTH_MAX }));
            }
        }
        Ok(fd)
    }

    /// A component that is there, but no directory: a symlink to follow, a whiteout to replace, or an error.
    fn step_through(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        walked: &EntryPath,
        path: &EntryPath,
    ) -> Result<OwnedFd, UnpackError> {
        let status =
            statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| self.failed("look at", walked, errno))?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::CharacterDevice => {
                unlinkat(parent, name, AtFlags::empty()).map_err(|errno| self.failed("replace", walked, errno))?;
                self.make_implicit(parent, name, walked, true)
            }
            FileType::Symlink => self.follow(walked, path),
            _ => {
                let ancestor = excerpt_bytes(walked.as_bytes());
                Err(UnpackError::entry(path.as_bytes(), EntryProblem::UnderFile { ancestor }))
            }
        }
    }

    fn follow(&self, walked: &EntryPath, path: &EntryPath) -> Result<OwnedFd, UnpackError> {
        let ancestor = || excerpt_bytes(walked.as_bytes());
        let flags = DIRECTORY.difference(OFlags::NOFOLLOW);
        openat2(&self.root, walked.as_bytes(), flags, Mode::empty(), IN_ROOT).map_err(|errno| match errno {
            Errno::LOOP => UnpackError::entry(path.as_bytes(), EntryProblem::SymlinkLoop { ancestor: ancestor() }),
            Errno::NOENT | Errno::NOTDIR | Errno::XDEV => {
                UnpackError::entry(path.as_bytes(), EntryProblem::UnderDeadSymlink { ancestor: ancestor() })
            }
            errno => self.failed("follow the symlink", walked, errno),
        })
    }

    fn make_implicit(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        walked: &EntryPath,
        opaque: bool,
    ) -> Result<OwnedFd, UnpackError> {
        self.budget.take_entry()?;
        if self.implicit.len() >= IMPLICIT_MAX {
            let what = "directories that it does not list";
            return Err(UnpackError::TooManyEntries { what, limit: IMPLICIT_MAX as u64 });
        }
        let made = (|| {
            let times = times_of(parent)?;
            mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
            let fd = openat2(parent, name, DIRECTORY, Mode::empty(), STRICT)?;
            // The parent's set-group-ID bit and our umask would show otherwise.
            fchown(&fd, Some(Uid::ROOT), Some(Gid::ROOT))?;
            fchmod(&fd, Mode::from_raw_mode(0o755))?;
            if opaque {
                set_opaque(fd.as_fd())?;
            }
            futimens(&fd, &times)?;
            futimens(parent, &times)?;
            Ok(fd)
        })();
        let fd = made.map_err(|errno| self.failed("make the directory", walked, errno))?;
        if !opaque {
            self.implicit.insert(walked.clone());
        }
        Ok(fd)
    }

    /// Clears the way for an entry named `name` in `dir`, following OCI image-spec 1.1, layer.md, "Changesets": a later
    /// entry replaces an earlier one, but a directory takes another one's attributes and keeps its contents.
    pub(super) fn clear_slot(
        &mut self,
        dir: &EntryPath,
        name: &[u8],
        for_directory: bool,
    ) -> Result<Slot, UnpackError> {
        let path = dir.join(name);
        let parent = self.dir(dir)?;
        let status = match stat(parent, name) {
            Ok(Some(status)) => status,
            Ok(None) => return Ok(Slot::Free),
            Err(errno) => return Err(self.failed("look at", &path, errno)),
        };
        let kind = FileType::from_raw_mode(status.st_mode);
        let removed = match kind {
            FileType::Directory if for_directory => return Ok(Slot::Directory),
            FileType::Directory => remove_dir_all(parent, name),
            _ => unlinkat(parent, name, AtFlags::empty()).map_err(io::Error::from),
        };
        removed.map_err(|source| self.io_failed("replace", &path, source))?;
        if kind == FileType::Directory {
            let below = [path.as_bytes(), b"/"].concat();
            self.implicit.retain(|implicit| *implicit != path && !implicit.as_bytes().starts_with(&below));
        }
        Ok(if kind == FileType::CharacterDevice { Slot::Whiteout } else { Slot::Free })
    }

    /// What the kernel said, or that the disk is full.
    pub(super) fn failed(&self, action: &'static str, path: &EntryPath, errno: Errno) -> UnpackError {
        self.io_failed(action, path, errno.into())
    }

    pub(super) fn io_failed(&self, action: &'static str, path: &EntryPath, source: io::Error) -> UnpackError {
        let path = if path.is_root() { "/".to_owned() } else { excerpt_bytes(path.as_bytes()) };
        if is_disk_full(source.raw_os_error()) {
            return UnpackError::DiskFull { path, dir: self.budget.store() };
        }
        UnpackError::Io { action, path, source }
    }
}

/// The status of an entry itself, if it is there.
pub(super) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Marks a directory so that the guest's overlay shows nothing of it from lower layers.
pub(super) fn set_opaque(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())
}

pub(super) fn times_of(fd: BorrowedFd<'_>) -> Result<Timestamps, Errno> {
    let status = fstat(fd)?;
    let nanoseconds = |nanoseconds: u64| i64::try_from(nanoseconds).unwrap_or(0);
    Ok(Timestamps {
        last_access: Timespec { tv_sec: status.st_atime, tv_nsec: nanoseconds(status.st_atime_nsec) },
        last_modification: Timespec { tv_sec: status.st_mtime, tv_nsec: nanoseconds(status.st_mtime_nsec) },
    })
}

/// Removes a directory of the layer with what it holds; follows no symlink.
fn remove_dir_all(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let dir = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string());
    std::fs::remove_dir_all(dir.join(OsStr::from_bytes(name)))
}

/// How many directories below the root an open directory really lies.
fn depth_of(dir: BorrowedFd<'_>, root: BorrowedFd<'_>) -> Option<usize> {
    let real = |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
    let (dir, root) = (real(dir)?, real(root)?);
    Some(dir.strip_prefix(root).ok()?.components().count())
}
