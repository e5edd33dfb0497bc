//! Leaving a namespace.
#![allow(unsafe_code, reason = "unshare is unsafe in rustix because of CLONE_FILES, which is not used here")]

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the calling process a cgroup namespace whose root is the group it is in.
pub(crate) fn unshare_cgroup() -> Result<(), Errno> {
    // SAFETY: a cgroup namespace changes nothing that memory safety or descriptors depend on.
    unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) }
}
