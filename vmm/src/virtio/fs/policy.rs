//! How a guest may cache a share: the two sets of FUSE options, chosen one by one.

use std::time::Duration;

use bulkhead_protocols::vm::Caching;
use fuse_backend_rs::abi::fuse_abi::FsOptions;
use fuse_backend_rs::passthrough::{CachePolicy, Config};

/// For ever, in seconds that no kernel's clock arithmetic overflows on: ten years.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What the guest's kernel is offered.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// FUSE_INIT flags, as far as the guest's kernel has them.
    pub(super) options: FsOptions,
    /// Nothing may be written through this share, whatever its mounts allow.
    pub(super) read_only: bool,
    /// How long a name that does not exist need not be asked for again.
    pub(super) negative_timeout: Option<Duration>,
}

/// Options that serve both kinds: parallel lookups, requests of 1 MiB, names and attributes in one answer.
const COMMON: FsOptions = FsOptions::ASYNC_READ
    .union(FsOptions::PARALLEL_DIROPS)
    .union(FsOptions::BIG_WRITES)
    .union(FsOptions::MAX_PAGES)
    .union(FsOptions::ASYNC_DIO)
    .union(FsOptions::DO_READDIRPLUS)
    .union(FsOptions::READDIRPLUS_AUTO)
    .union(FsOptions::INIT_EXT);

impl Policy {
    /// The policy of a share.
    pub(super) fn new(caching: Caching) -> Self {
        match caching {
            Caching::Immutable => Self {
                // Opens need no request, so that a warm open, read and close is silent.
                options: COMMON
                    | FsOptions::CACHE_SYMLINKS
                    | FsOptions::ZERO_MESSAGE_OPEN
                    | FsOptions::ZERO_MESSAGE_OPENDIR,
                read_only: true,
                negative_timeout: Some(FOREVER),
            },
            Caching::Live => Self {
                // Without AUTO_INVAL_DATA: it would ask for attributes on every read; an open drops the data anyway.
                // Without WRITEBACK_CACHE: the host must see a write when it is done.
                options: COMMON | FsOptions::ATOMIC_O_TRUNC | FsOptions::HANDLE_KILLPRIV_V2,
                read_only: false,
                negative_timeout: None,
            },
        }
    }
}

/// The passthrough library's settings for a share whose root is `root_dir`.
pub(super) fn passthrough(caching: Caching, root_dir: String) -> Config {
    let immutable = caching == Caching::Immutable;
    let timeout = if immutable { FOREVER } else { Duration::ZERO };
    Config {
        root_dir,
        entry_timeout: timeout,
        attr_timeout: timeout,
        dir_entry_timeout: None,
        dir_attr_timeout: None,
        cache_policy: if immutable { CachePolicy::Always } else { CachePolicy::Auto },
        no_open: immutable,
        no_opendir: immutable,
        writeback: false,
        killpriv_v2: !immutable,
        // Overlay file systems in the guest read their marks (opaque directories) from extended attributes.
        xattr: true,
        // A descriptor per inode would end at a few thousand files.
        inode_file_handles: true,
        // The share's root is opened when the guest's kernel says hello, and names are checked there.
        do_import: true,
        // A guest's direct I/O bypasses its own cache; the alignment rules of the host's file system are not its business.
        allow_direct_io: false,
        use_host_ino: false,
        enable_mntid: false,
        no_readdir: false,
        seal_size: false,
        dax_file_size: None,
    }
}
