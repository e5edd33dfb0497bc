//! Builds the guest's Linux kernel and keeps the result in a cache.
//!
//! ```text
//! source ──sha256──> unpack ──> allnoconfig + fragments ──check──> make vmlinux ──strip──> cache
//!   given tarball,                config/*.config                                  kernel/<hash>/
//!   Debian's, kernel.org
//! ```
//!
//! The cache key is a hash of everything that decides the bytes of the result, so a hit needs neither the source nor a
//! compiler run. Who owns what: [`source`] knows the pinned tarballs, [`fragment`] the options and their reasons,
//! [`check`] compares them with what Kconfig made of them, [`compile`] runs the kernel's own build, [`cache`] owns the
//! folder on disk.

pub mod cache;
pub mod check;
pub mod compile;
pub mod fragment;
pub mod source;

mod error;
mod manifest;
mod progress;

pub use error::Error;
pub use manifest::Manifest;
pub use progress::{Progress, Step, print_to_stderr};

use std::path::PathBuf;

/// Raised when the way the kernel is built changes without a change of source, fragments or compiler.
pub const BUILDER_REVISION: u32 = 1;

/// What to build and where to keep it.
pub struct Options<'a> {
    /// Root of the build cache; the kernel goes to `kernel/<hash>/` below it.
    pub cache: PathBuf,
    /// A source tarball to use instead of the ones found by themselves.
    pub source: Option<source::Given>,
    /// Fragments on top of the built-in ones, for a debug kernel; later lines win.
    pub extra_fragments: Vec<PathBuf>,
    /// Parallel compiler processes.
    pub jobs: usize,
    /// Told about each step, and every few seconds while compiling.
    pub progress: &'a dyn Fn(&Progress),
}

/// A kernel ready to boot.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Stripped ELF with a PVH entry note.
    pub vmlinux: PathBuf,
    /// What `uname -r` prints in the guest.
    pub version: String,
    /// Name of the folder in the cache, 64 hexadecimal digits.
    pub hash: String,
    /// True when nothing was compiled.
    pub from_cache: bool,
}

/// Returns the kernel for these options, building it if the cache does not hold it.
///
/// Two processes that want the same kernel do not build it twice: the second waits for the first.
///
/// # Errors
///
/// A missing tool, a source that is absent or has the wrong digest, a fragment that Kconfig did not follow, and a
/// failed compilation, each with what to do about it.
pub fn build(options: &Options<'_>) -> Result<Kernel, Error> {
    let fragments = fragment::load(&options.extra_fragments)?;
    let toolchain = compile::Toolchain::find()?;
    let keys = cache::Keys::new(&fragments, &toolchain);
    let store = cache::Store::open(&options.cache)?;

    let candidates = source::candidates(options.source.as_ref())?;
    for candidate in &candidates {
        if let Some(kernel) = store.get(&keys.for_source(&candidate.sha256))? {
            return Ok(kernel);
        }
    }
    let report = progress::Reporter::new(options.progress);
    let found = source::obtain(&candidates, &options.cache, &report)?;
    let hash = keys.for_source(&found.sha256);
    let slot = store.lock(&hash, &report)?;
    // Another process may have built it while this one waited.
    if let Some(kernel) = store.get(&hash)? {
        return Ok(kernel);
    }
    let job = compile::Job { source: &found, fragments: &fragments, toolchain: &toolchain, jobs: options.jobs };
    let built = job.run(slot.work_dir(), slot.log(), &report)?;
    slot.publish(&built)?;
    let kernel = store.get(&hash)?.ok_or(Error::Lost { hash })?;
    Ok(Kernel { from_cache: false, ..kernel })
}
