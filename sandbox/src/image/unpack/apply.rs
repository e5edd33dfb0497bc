//! Makes the entries of a layer in its tree (OCI image-spec 1.1, layer.md).

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fsetxattr, futimens, linkat, mkdirat, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::super::excerpt::excerpt_bytes;
use super::LayerStats;
use super::error::{EntryProblem, UnpackError};
use super::path::EntryPath;
use super::tar::{Entry, Kind, Skip, TarReader};
use super::tree::{Slot, Tree, set_opaque, stat};

/// Longest target of a symlink: PATH_MAX without the final NUL.
const SYMLINK_MAX_BYTES: usize = 4095;
const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Rest of a name, after [`WHITEOUT_PREFIX`], that makes its directory opaque.
const OPAQUE_NAME: &[u8] = b".wh..opq";

/// Applies entries in their order.
pub(super) struct Applier<'a> {
    tree: &'a mut Tree,
    stats: LayerStats,
    buffer: Vec<u8>,
}

/// Where one entry goes.
struct Place<'a> {
    path: &'a EntryPath,
    dir: &'a EntryPath,
    name: &'a [u8],
}

impl<'a> Applier<'a> {
    pub(super) fn new(tree: &'a mut Tree) -> Self {
        Self { tree, stats: LayerStats::default(), buffer: vec![0; 128 * 1024] }
    }

    pub(super) fn finish(self) -> LayerStats {
        self.stats
    }

    /// Makes one entry, reading its data from `tar`.
    pub(super) fn apply<R: Skip>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<(), UnpackError> {
        self.make(entry, tar).map_err(|error| error.of_entry(&entry.path))
    }

    fn make<R: Skip>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<(), UnpackError> {
        let refuse = |problem| UnpackError::entry(&entry.path, problem);
        let path = EntryPath::new(&entry.path).map_err(refuse)?;
        self.tree.budget.take_entry()?;
        let Some((dir, name)) = path.split() else { return self.root(entry) };
        let place = Place { path: &path, dir: &dir, name };
        if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            return self.whiteout(entry, &place, hidden);
        }
        match entry.kind {
            Kind::Directory => self.directory(entry, &place),
            Kind::File => self.file(entry, &place, tar),
            Kind::HardLink => self.hard_link(entry, &place),
            Kind::Symlink => self.symlink(entry, &place),
            Kind::Fifo => self.fifo(entry, &place),
            Kind::Device => {
                // Never made on the host: the container gets a /dev of its own in the guest.
                self.stats.skipped_devices += 1;
                return Ok(());
            }
        }?;
        self.stats.entries += 1;
        Ok(())
    }

    fn root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            let what = "the layer's root, yet no directory".to_owned();
            return Err(UnpackError::entry(&entry.path, EntryProblem::Unsupported { what }));
        }
        self.tree.close_dir();
        let root = self.tree.root().try_clone_to_owned();
        let path = EntryPath::default();
        let root = root.map_err(|source| self.tree.io_failed("open", &path, source))?;
        self.attributes(entry, &path, root.as_fd())
    }

    fn directory(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), UnpackError> {
        // Should this directory itself be the open one, its old times must not overwrite the new ones later.
        self.tree.close_dir();
        let slot = self.tree.clear_slot(place.dir, place.name, true)?;
        let parent = self.tree.dir(place.dir)?;
        let made = (|| {
            if slot != Slot::Directory {
                mkdirat(parent, place.name, Mode::from_raw_mode(0o700))?;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = openat(parent, place.name, flags, Mode::empty())?;
            if slot == Slot::Whiteout {
                set_opaque(fd.as_fd())?;
            }
            Ok(fd)
        })();
        let fd = made.map_err(|errno| self.tree.failed("make the directory", place.path, errno))?;
        self.tree.is_explicit(place.path);
        self.attributes(entry, place.path, fd.as_fd())
    }

    fn file<R: Skip>(&mut self, entry: &Entry, place: &Place<'_>, tar: &mut TarReader<R>) -> Result<(), UnpackError> {
        self.tree.budget.check_declared(&entry.path, entry.size)?;
        self.tree.clear_slot(place.dir, place.name, false)?;
        let parent = self.tree.dir(place.dir)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, place.name, flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(fd.map_err(|errno| self.tree.failed("make the file", place.path, errno))?);
        loop {
            let count = tar.read_data(&mut self.buffer)?;
            let data = self.buffer.get(..count).unwrap_or_default();
            if data.is_empty() {
                break;
            }
            file.write_all(data).map_err(|source| self.tree.io_failed("write", place.path, source))?;
            self.stats.bytes += data.len() as u64;
        }
        self.attributes(entry, place.path, file.as_fd())
    }

    fn hard_link(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), UnpackError> {
        let refuse = |problem| UnpackError::entry(&entry.path, problem);
        let shown = || excerpt_bytes(&entry.link_target);
        let target = EntryPath::link_target(&entry.link_target).map_err(refuse)?;
        let missing = || refuse(EntryProblem::LinkTargetMissing { target: shown() });
        let (target_dir, target_name) = target.split().ok_or_else(missing)?;
        let target_fd = match self.tree.existing_dir(&target_dir) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Err(missing()),
            Err(errno) => return Err(self.tree.failed("open the directory", &target_dir, errno)),
        };
        let status = stat(target_fd.as_fd(), target_name)
            .map_err(|errno| self.tree.failed("look at", &target, errno))?
            .ok_or_else(missing)?;
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => return Err(refuse(EntryProblem::LinkToDirectory { target: shown() })),
            // A whiteout: the layer says that there is no such file.
            FileType::CharacterDevice => return Err(missing()),
            _ => {}
        }
        let parent = self.tree.dir(place.dir)?;
        let existing = stat(parent, place.name).map_err(|errno| self.tree.failed("look at", place.path, errno))?;
        if existing.is_some_and(|existing| existing.st_ino == status.st_ino && existing.st_dev == status.st_dev) {
            // A link to itself: replacing it would destroy the target.
            return Ok(());
        }
        self.tree.clear_slot(place.dir, place.name, false)?;
        let parent = self.tree.dir(place.dir)?;
        match linkat(&target_fd, target_name, parent, place.name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // The target lay in a directory that the link itself has just replaced.
            Err(Errno::NOENT) => Err(missing()),
            Err(errno) => Err(self.tree.failed("make the hard link", place.path, errno)),
        }
    }

    fn symlink(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), UnpackError> {
        let refuse = |problem| UnpackError::entry(&entry.path, problem);
        let target = entry.link_target.as_slice();
        if target.is_empty() || target.contains(&0) {
            return Err(refuse(EntryProblem::BadName { what: "a symlink target that is empty or holds a NUL byte" }));
        }
        if target.len() > SYMLINK_MAX_BYTES {
            let length = target.len();
            return Err(refuse(EntryProblem::TooLong { part: "symlink target", length, limit: SYMLINK_MAX_BYTES }));
        }
        self.tree.clear_slot(place.dir, place.name, false)?;
        let parent = self.tree.dir(place.dir)?;
        symlinkat(target, parent, place.name)
            .map_err(|errno| self.tree.failed("make the symlink", place.path, errno))?;
        self.own_by_name(entry, place)
    }

    fn fifo(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), UnpackError> {
        self.tree.clear_slot(place.dir, place.name, false)?;
        let parent = self.tree.dir(place.dir)?;
        mknodat(parent, place.name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .map_err(|errno| self.tree.failed("make the pipe", place.path, errno))?;
        self.own_by_name(entry, place)?;
        let parent = self.tree.dir(place.dir)?;
        chmodat(parent, place.name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
            .map_err(|errno| self.tree.failed("set the mode of", place.path, errno))
    }

    /// Owner and times of what cannot be opened; xattrs of such entries are not kept.
    fn own_by_name(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), UnpackError> {
        self.stats.skipped_xattrs += entry.xattrs.len() as u64;
        let parent = self.tree.dir(place.dir)?;
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        chownat(parent, place.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .and_then(|()| utimensat(parent, place.name, &times(entry), AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|errno| self.tree.failed("set the owner and times of", place.path, errno))
    }

    /// Owner, xattrs, mode and times, in the order in which none undoes another: chown(2) clears the set-user-ID bits and
    /// file capabilities.
    fn attributes(&mut self, entry: &Entry, path: &EntryPath, fd: BorrowedFd<'_>) -> Result<(), UnpackError> {
        fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
            .map_err(|errno| self.tree.failed("set the owner of", path, errno))?;
        for (name, value) in &entry.xattrs {
            self.xattr(path, fd, name, value)?;
        }
        fchmod(fd, Mode::from_raw_mode(entry.mode))
            .map_err(|errno| self.tree.failed("set the mode of", path, errno))?;
        futimens(fd, &times(entry)).map_err(|errno| self.tree.failed("set the times of", path, errno))
    }

    fn xattr(&mut self, path: &EntryPath, fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<(), UnpackError> {
        if !is_kept(name) {
            self.stats.skipped_xattrs += 1;
            return Ok(());
        }
        match fsetxattr(fd, name, value, XattrFlags::empty()) {
            Ok(()) => Ok(()),
            // What the host's file system cannot hold, or the kernel finds malformed, is left out and counted.
            Err(Errno::NOTSUP | Errno::INVAL | Errno::RANGE | Errno::TOOBIG | Errno::PERM) => {
                self.stats.skipped_xattrs += 1;
                Ok(())
            }
            Err(errno) => Err(self.tree.failed("set an extended attribute of", path, errno)),
        }
    }

    fn whiteout(&mut self, entry: &Entry, place: &Place<'_>, hidden: &[u8]) -> Result<(), UnpackError> {
        if hidden == OPAQUE_NAME {
            return self.opaque(place);
        }
        if hidden.starts_with(WHITEOUT_PREFIX) {
            // AUFS kept records of its own under such names; they remove nothing.
            self.stats.skipped_aufs += 1;
            return Ok(());
        }
        let what = match hidden {
            b"" => Some("nothing"),
            b"." => Some("its own directory"),
            b".." => Some("its parent directory"),
            _ => None,
        };
        if let Some(what) = what {
            return Err(UnpackError::entry(&entry.path, EntryProblem::BadWhiteout { what }));
        }
        let path = place.dir.join(hidden);
        let parent = self.tree.dir(place.dir)?;
        let made = (|| match stat(parent, hidden)?.map(|status| FileType::from_raw_mode(status.st_mode)) {
            None => mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0),
            // This layer's own entries stay; a directory must only not show what lies below.
            Some(FileType::Directory) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                set_opaque(openat(parent, hidden, flags, Mode::empty())?.as_fd())
            }
            Some(_) => Ok(()),
        })();
        self.stats.whiteouts += 1;
        made.map_err(|errno| self.tree.failed("make the whiteout of", &path, errno))
    }

    fn opaque(&mut self, place: &Place<'_>) -> Result<(), UnpackError> {
        self.stats.whiteouts += 1;
        if place.dir.is_root() {
            // An overlay does not ask its layers' roots: the layers below are left out of the stack instead.
            self.stats.opaque_root = true;
            return Ok(());
        }
        let dir = self.tree.dir(place.dir)?;
        set_opaque(dir).map_err(|errno| self.tree.failed("make opaque", place.dir, errno))
    }
}

/// Attributes that belong to the image's files. Others belong to the host: `trusted.*` and `user.overlay.*` would steer
/// the guest's overlay, `security.selinux`, ACLs and the like speak of the host where the image was built.
fn is_kept(name: &[u8]) -> bool {
    !name.contains(&0)
        && (name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")))
}

fn times(entry: &Entry) -> Timestamps {
    let (tv_sec, nanoseconds) = entry.mtime;
    let time = Timespec { tv_sec, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}
