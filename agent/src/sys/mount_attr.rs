//! `mount_setattr(2)`: attributes and propagation of a mount, attached or not, alone or with everything below it.
#![allow(unsafe_code, reason = "mount_setattr has no wrapper in rustix")]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// What to change of a mount: the `struct mount_attr` of the kernel, without id mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountChange {
    /// `MOUNT_ATTR_*` bits to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` bits to clear.
    pub(crate) clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`; 0 leaves the propagation as it is.
    pub(crate) propagation: u64,
}

impl MountChange {
    /// A change that sets `bits` and nothing else.
    pub(crate) fn set(bits: u64) -> Self {
        Self { set: bits, ..Self::default() }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Applies `change` to the mount whose root `mount` refers to, and to all below it if `recursive`.
pub(crate) fn change_mount(mount: impl AsFd, change: MountChange, recursive: bool) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated constant, and `attr` is a live structure of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    super::fds::check(result).map(|_| ())
}
