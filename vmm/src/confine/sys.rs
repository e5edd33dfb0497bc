//! The two system calls of confinement without a safe wrapper.
#![allow(unsafe_code, reason = "mount_setattr(2) has no safe wrapper, and unshare(2) is unsafe for descriptor tables")]

use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};
use rustix::thread::UnshareFlags;

/// Gives the calling thread a mount namespace, root and working directory of its own.
pub(super) fn unshare_mounts() -> Result<()> {
    // SAFETY: the descriptor table stays shared: UnshareFlags::FILES is not among the flags.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }
}

/// Adds `MOUNT_ATTR_*` flags to the mount that `mount` refers to, and with `recursive` to all below it.
pub(super) fn add_mount_attributes(mount: BorrowedFd<'_>, attributes: u64, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let set = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is an empty C string, `set` outlives the call and its size is passed; the kernel writes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags as c_int,
            &raw const set,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) }
}
