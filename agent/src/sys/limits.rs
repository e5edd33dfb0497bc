//! Resource limits by number.
#![allow(unsafe_code, reason = "rustix takes resources by name only, and not all of them")]

use rustix::io::Errno;

/// Sets the soft and hard limit of `RLIMIT_*` number `resource` for this process.
pub(crate) fn set(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is a live structure that the call only reads; an unknown resource is refused by the kernel.
    let result = unsafe { libc::setrlimit64(resource, &raw const limit) };
    super::fds::check(libc::c_long::from(result)).map(|_| ())
}
