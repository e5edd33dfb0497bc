//! Counts requests by what they ask, under the names of the FUSE operations.

use fuse_backend_rs::abi::fuse_abi::{InHeader, OutHeader};
use fuse_backend_rs::api::server::MetricsHook;

use crate::counters::{Counter, Counters};

/// Operations by their number (Linux, include/uapi/linux/fuse.h); an empty name is a number that was never given out.
const OPERATIONS: [&str; 53] = [
    "",
    "lookup",
    "forget",
    "getattr",
    "setattr",
    "readlink",
    "symlink",
    "",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "rename",
    "link",
    "open",
    "read",
    "write",
    "statfs",
    "release",
    "",
    "fsync",
    "setxattr",
    "getxattr",
    "listxattr",
    "removexattr",
    "flush",
    "init",
    "opendir",
    "readdir",
    "releasedir",
    "fsyncdir",
    "getlk",
    "setlk",
    "setlkw",
    "access",
    "create",
    "interrupt",
    "bmap",
    "destroy",
    "ioctl",
    "poll",
    "notify_reply",
    "batch_forget",
    "fallocate",
    "readdirplus",
    "rename2",
    "lseek",
    "copy_file_range",
    "setupmapping",
    "removemapping",
    "syncfs",
    "tmpfile",
    "statx",
];

/// A counter for each operation, and one for all others.
#[derive(Debug)]
pub(super) struct Requests {
    by_operation: Vec<Counter>,
    unknown: Counter,
}

impl Requests {
    /// Counters named `fs.<tag>.<operation>`.
    pub(super) fn new(tag: &str, counters: &Counters) -> Self {
        let unknown = counters.counter(&format!("fs.{tag}.unknown"));
        let by_operation = OPERATIONS
            .iter()
            .map(|name| if name.is_empty() { unknown.clone() } else { counters.counter(&format!("fs.{tag}.{name}")) })
            .collect();
        Self { by_operation, unknown }
    }
}

impl MetricsHook for Requests {
    fn collect(&self, header: &InHeader) {
        let operation = usize::try_from(header.opcode).unwrap_or(usize::MAX);
        self.by_operation.get(operation).unwrap_or(&self.unknown).increment();
    }

    fn release(&self, _header: Option<&OutHeader>) {}
}
