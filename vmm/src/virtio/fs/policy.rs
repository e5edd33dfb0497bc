//! Which requests a share refuses before they reach the file server.
//!
//! The mounts of the share enforce read-only too; this is the second wall, and it covers what a mount cannot: device
//! nodes and host-privileged extended attributes, which root in a guest must not leave on the host.

use bulkhead_protocols::vm::Caching;
use rustix::io::Errno;

use super::spec;

/// Bytes of a request that the policy looks at: header, `struct fuse_setxattr_in` in its short form, and the start of
/// the attribute's name.
pub(super) const PREFIX_LEN: usize = spec::IN_HEADER_LEN + 8 + TRUSTED.len();

const TRUSTED: &[u8] = b"trusted.";

/// Opcodes that change the share.
const CHANGES: &[u32] = &[
    spec::SETATTR,
    spec::SYMLINK,
    spec::MKNOD,
    spec::MKDIR,
    spec::UNLINK,
    spec::RMDIR,
    spec::RENAME,
    spec::LINK,
    spec::WRITE,
    spec::SETXATTR,
    spec::REMOVEXATTR,
    spec::CREATE,
    spec::FALLOCATE,
    spec::RENAME2,
    spec::COPY_FILE_RANGE,
    spec::TMPFILE,
];

/// Why the request must not be carried out, `None` if it may. `prefix` is the request's beginning, [`PREFIX_LEN`] bytes
/// or all there are.
pub(super) fn refusal(caching: Caching, opcode: u32, prefix: &[u8]) -> Option<Errno> {
    if caching == Caching::Immutable && CHANGES.contains(&opcode) {
        return Some(Errno::ROFS);
    }
    let body = prefix.get(spec::IN_HEADER_LEN..).unwrap_or_default();
    match opcode {
        spec::MKNOD if is_device_node(body) => Some(Errno::PERM),
        spec::SETXATTR if body.get(8..).is_some_and(|name| name.starts_with(TRUSTED)) => Some(Errno::PERM),
        spec::REMOVEXATTR if body.starts_with(TRUSTED) => Some(Errno::PERM),
        _ => None,
    }
}

/// `struct fuse_mknod_in` begins with mode and rdev; a character device 0:0 is an overlay whiteout, not a device.
fn is_device_node(body: &[u8]) -> bool {
    let (Some(mode), Some(rdev)) = (word(body, 0), word(body, 4)) else { return false };
    match mode & libc::S_IFMT {
        libc::S_IFBLK => true,
        libc::S_IFCHR => rdev != 0,
        _ => false,
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
