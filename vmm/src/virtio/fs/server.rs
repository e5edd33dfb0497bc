//! The file server of one share: `fuse-backend-rs` over a host directory, its options chosen and not inherited.

use std::io;
use std::path::Path;
use std::time::Duration;

use bulkhead_protocols::vm::Caching;
use fuse_backend_rs::api::filesystem::FsOptions;
use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::api::{Vfs, VfsOptions};
use fuse_backend_rs::passthrough::{CachePolicy, Config, PassthroughFs};

/// What a guest may keep of an immutable share: ten years, as good as for ever and far from any overflow.
pub(super) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A server that has not been initialised by its guest yet.
///
/// `root` must be UTF-8, and `/proc` visible: the server keeps file handles, not open descriptors, for the inodes a guest
/// remembers, and finds their mounts in `/proc/self/mountinfo`.
pub(super) fn new(root: &Path, caching: Caching) -> io::Result<Server<Vfs>> {
    let root = root
        .to_str()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not UTF-8", root.display())))?;
    let files = PassthroughFs::<()>::new(config(root, caching))?;
    files.import()?;
    let vfs = Vfs::new(options(caching));
    vfs.mount(Box::new(files), "/").map_err(io::Error::other)?;
    Ok(Server::new(vfs))
}

fn config(root: &str, caching: Caching) -> Config {
    let common = Config {
        root_dir: root.to_owned(),
        xattr: true,
        // The Vfs negotiates for the file system below it.
        do_import: false,
        // A guest may remember more inodes than this process may hold descriptors.
        inode_file_handles: true,
        // The same file bound twice is one inode in the guest too.
        enable_mntid: false,
        ..Config::default()
    };
    match caching {
        Caching::Immutable => Config {
            attr_timeout: FOREVER,
            entry_timeout: FOREVER,
            cache_policy: CachePolicy::Always,
            no_open: true,
            no_opendir: true,
            ..common
        },
        Caching::Live => Config {
            attr_timeout: Duration::ZERO,
            entry_timeout: Duration::ZERO,
            cache_policy: CachePolicy::Auto,
            killpriv_v2: true,
            ..common
        },
    }
}

fn options(caching: Caching) -> VfsOptions {
    let common = FsOptions::ASYNC_READ
        | FsOptions::PARALLEL_DIROPS
        | FsOptions::BIG_WRITES
        | FsOptions::MAX_PAGES
        | FsOptions::DO_READDIRPLUS
        | FsOptions::READDIRPLUS_AUTO;
    match caching {
        // Opens are answered once with ENOSYS, then never asked again.
        Caching::Immutable => VfsOptions {
            no_open: true,
            no_opendir: true,
            no_writeback: true,
            killpriv_v2: false,
            out_opts: common
                | FsOptions::CACHE_SYMLINKS
                | FsOptions::ZERO_MESSAGE_OPEN
                | FsOptions::ZERO_MESSAGE_OPENDIR,
            ..VfsOptions::default()
        },
        // Data is dropped when a file has changed at its next open or getattr; setuid bits go on write.
        Caching::Live => VfsOptions {
            no_open: false,
            no_opendir: false,
            no_writeback: true,
            killpriv_v2: true,
            out_opts: common | FsOptions::AUTO_INVAL_DATA | FsOptions::ATOMIC_O_TRUNC | FsOptions::HANDLE_KILLPRIV_V2,
            ..VfsOptions::default()
        },
    }
}
