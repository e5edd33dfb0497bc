//! The file system behind a share: the passthrough library with our limits in front of it.
//!
//! It owns the library's inode and handle tables. Every name, flag and size that a guest sends passes here as a value of
//! our own memory, after the server has copied it, so that a guest cannot change it between check and use.

use std::ffi::CStr;
use std::io;
use std::path::Path;
use std::time::Duration;

use bulkhead_protocols::vm::Caching;
use fuse_backend_rs::abi::fuse_abi::{CreateIn, FsOptions, OpenOptions, SetattrValid, stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, GetxattrReply, ListxattrReply, ZeroCopyReader, ZeroCopyWriter,
};
use fuse_backend_rs::passthrough::PassthroughFs;

use super::policy::{self, Policy};

/// Greatest value, and greatest list of names, of extended attributes (Linux, XATTR_SIZE_MAX).
const XATTR_BYTES_MAX: u32 = 64 * 1024;
/// Most bytes of directory entries in one answer.
const READDIR_BYTES_MAX: u32 = 128 * 1024;
/// Open flags that mean something to the host's file; the rest is the guest's own business (`O_DIRECT`, `O_NONBLOCK`)
/// or nobody's (`O_PATH`, `O_TMPFILE`).
const OPEN_FLAGS: i32 = libc::O_ACCMODE
    | libc::O_APPEND
    | libc::O_CREAT
    | libc::O_DIRECTORY
    | libc::O_DSYNC
    | libc::O_EXCL
    | libc::O_LARGEFILE
    | libc::O_NOATIME
    | libc::O_NOFOLLOW
    | libc::O_SYNC
    | libc::O_TRUNC;

/// One share, between the FUSE server and the host's files.
pub(super) struct Share {
    files: PassthroughFs,
    policy: Policy,
}

type Opened = (Option<u64>, OpenOptions, Option<u32>);

impl Share {
    /// The share whose root is the directory `root`.
    pub(super) fn new(caching: Caching, root: &Path) -> io::Result<Self> {
        let root = root.to_str().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        let files = PassthroughFs::new(policy::passthrough(caching, root.to_owned()))?;
        Ok(Self { files, policy: Policy::new(caching) })
    }

    fn writable(&self) -> io::Result<()> {
        if self.policy.read_only { Err(errno(libc::EROFS)) } else { Ok(()) }
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// Attributes that only a privileged process of the host can set: not something for a guest to leave there.
fn unprivileged(name: &CStr) -> io::Result<()> {
    if name.to_bytes().starts_with(b"trusted.") { Err(errno(libc::EPERM)) } else { Ok(()) }
}

/// `.` and `..` lead out of a share by way of its root; a kernel resolves them itself.
fn plain_name(name: &CStr) -> io::Result<()> {
    if matches!(name.to_bytes(), b"" | b"." | b"..") { Err(errno(libc::EINVAL)) } else { Ok(()) }
}

fn open_flags(flags: u32) -> u32 {
    flags & OPEN_FLAGS as u32
}

/// A guest sees our inode numbers: those of two host file systems may be equal.
fn own_numbers(mut entry: Entry) -> Entry {
    entry.attr.st_ino = entry.inode;
    entry
}

impl FileSystem for Share {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        let options = capable & self.policy.options;
        self.files.init(options)?;
        Ok(options)
    }

    fn destroy(&self) {
        self.files.destroy();
    }

    fn lookup(&self, context: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        plain_name(name)?;
        match (self.files.lookup(context, parent, name), self.policy.negative_timeout) {
            (Err(error), Some(entry_timeout)) if error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(Entry { entry_timeout, ..Entry::default() })
            }
            (result, _) => result.map(own_numbers),
        }
    }

    fn forget(&self, context: &Context, inode: u64, count: u64) {
        self.files.forget(context, inode, count);
    }

    fn batch_forget(&self, context: &Context, requests: Vec<(u64, u64)>) {
        self.files.batch_forget(context, requests);
    }

    fn getattr(&self, context: &Context, inode: u64, handle: Option<u64>) -> io::Result<(stat64, Duration)> {
        let (mut attributes, timeout) = self.files.getattr(context, inode, handle)?;
        attributes.st_ino = inode;
        Ok((attributes, timeout))
    }

    fn setattr(
        &self,
        context: &Context,
        inode: u64,
        attributes: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        self.writable()?;
        let (mut attributes, timeout) = self.files.setattr(context, inode, attributes, handle, valid)?;
        attributes.st_ino = inode;
        Ok((attributes, timeout))
    }

    fn readlink(&self, context: &Context, inode: u64) -> io::Result<Vec<u8>> {
        self.files.readlink(context, inode)
    }

    fn symlink(&self, context: &Context, target: &CStr, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.writable()?;
        self.files.symlink(context, target, parent, name).map(own_numbers)
    }

    fn mknod(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        device: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.writable()?;
        let is_device = matches!(mode & libc::S_IFMT, libc::S_IFBLK | libc::S_IFCHR);
        let is_whiteout = mode & libc::S_IFMT == libc::S_IFCHR && device == 0;
        if is_device && !is_whiteout {
            // It would be a real device in the host's directory.
            return Err(errno(libc::EPERM));
        }
        self.files.mknod(context, parent, name, mode, device, umask).map(own_numbers)
    }

    fn mkdir(&self, context: &Context, parent: u64, name: &CStr, mode: u32, umask: u32) -> io::Result<Entry> {
        self.writable()?;
        self.files.mkdir(context, parent, name, mode, umask).map(own_numbers)
    }

    fn unlink(&self, context: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.writable()?;
        self.files.unlink(context, parent, name)
    }

    fn rmdir(&self, context: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.writable()?;
        self.files.rmdir(context, parent, name)
    }

    fn rename(
        &self,
        context: &Context,
        old_parent: u64,
        old_name: &CStr,
        new_parent: u64,
        new_name: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        self.writable()?;
        self.files.rename(context, old_parent, old_name, new_parent, new_name, flags)
    }

    fn link(&self, context: &Context, inode: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.writable()?;
        self.files.link(context, inode, parent, name).map(own_numbers)
    }

    fn open(&self, context: &Context, inode: u64, flags: u32, fuse_flags: u32) -> io::Result<Opened> {
        let writes = flags & libc::O_ACCMODE as u32 != libc::O_RDONLY as u32;
        if writes || flags & libc::O_TRUNC as u32 != 0 {
            self.writable()?;
        }
        self.files.open(context, inode, open_flags(flags), fuse_flags)
    }

    fn create(
        &self,
        context: &Context,
        parent: u64,
        name: &CStr,
        mut args: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        self.writable()?;
        args.flags = open_flags(args.flags);
        let (entry, handle, options, backing) = self.files.create(context, parent, name, args)?;
        Ok((own_numbers(entry), handle, options, backing))
    }

    fn read(
        &self,
        context: &Context,
        inode: u64,
        handle: u64,
        to: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        self.files.read(context, inode, handle, to, size, offset, lock_owner, open_flags(flags))
    }

    fn write(
        &self,
        context: &Context,
        inode: u64,
        handle: u64,
        from: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed: bool,
        flags: u32,
        fuse_flags: u32,
    ) -> io::Result<usize> {
        self.writable()?;
        let flags = open_flags(flags);
        self.files.write(context, inode, handle, from, size, offset, lock_owner, delayed, flags, fuse_flags)
    }

    fn flush(&self, context: &Context, inode: u64, handle: u64, lock_owner: u64) -> io::Result<()> {
        self.files.flush(context, inode, handle, lock_owner)
    }

    fn fsync(&self, context: &Context, inode: u64, data_only: bool, handle: u64) -> io::Result<()> {
        self.files.fsync(context, inode, data_only, handle)
    }

    fn fallocate(
        &self,
        context: &Context,
        inode: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.writable()?;
        self.files.fallocate(context, inode, handle, mode, offset, length)
    }

    fn release(
        &self,
        context: &Context,
        inode: u64,
        flags: u32,
        handle: u64,
        flush: bool,
        flock_release: bool,
        lock_owner: Option<u64>,
    ) -> io::Result<()> {
        self.files.release(context, inode, flags, handle, flush, flock_release, lock_owner)
    }

    fn statfs(&self, context: &Context, inode: u64) -> io::Result<statvfs64> {
        self.files.statfs(context, inode)
    }

    fn setxattr(&self, context: &Context, inode: u64, name: &CStr, value: &[u8], flags: u32) -> io::Result<()> {
        self.writable()?;
        unprivileged(name)?;
        self.files.setxattr(context, inode, name, value, flags)
    }

    fn getxattr(&self, context: &Context, inode: u64, name: &CStr, size: u32) -> io::Result<GetxattrReply> {
        self.files.getxattr(context, inode, name, size.min(XATTR_BYTES_MAX))
    }

    fn listxattr(&self, context: &Context, inode: u64, size: u32) -> io::Result<ListxattrReply> {
        self.files.listxattr(context, inode, size.min(XATTR_BYTES_MAX))
    }

    fn removexattr(&self, context: &Context, inode: u64, name: &CStr) -> io::Result<()> {
        self.writable()?;
        unprivileged(name)?;
        self.files.removexattr(context, inode, name)
    }

    fn opendir(&self, context: &Context, inode: u64, flags: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        self.files.opendir(context, inode, open_flags(flags))
    }

    fn readdir(
        &self,
        context: &Context,
        inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.files.readdir(context, inode, handle, size.min(READDIR_BYTES_MAX), offset, add)
    }

    fn readdirplus(
        &self,
        context: &Context,
        inode: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut add_own = |mut name: DirEntry<'_>, entry: Entry| {
            name.ino = entry.inode;
            add(name, own_numbers(entry))
        };
        self.files.readdirplus(context, inode, handle, size.min(READDIR_BYTES_MAX), offset, &mut add_own)
    }

    fn fsyncdir(&self, context: &Context, inode: u64, data_only: bool, handle: u64) -> io::Result<()> {
        self.files.fsyncdir(context, inode, data_only, handle)
    }

    fn releasedir(&self, context: &Context, inode: u64, flags: u32, handle: u64) -> io::Result<()> {
        self.files.releasedir(context, inode, flags, handle)
    }

    fn access(&self, context: &Context, inode: u64, mask: u32) -> io::Result<()> {
        self.files.access(context, inode, mask)
    }

    fn lseek(&self, context: &Context, inode: u64, handle: u64, offset: u64, whence: u32) -> io::Result<u64> {
        self.files.lseek(context, inode, handle, offset, whence)
    }
}
