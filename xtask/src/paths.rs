//! Where things are: the source tree, cargo's target directory, the build cache.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The directories every command works with, all absolute.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// The workspace's root.
    pub(crate) root: PathBuf,
    /// Cargo's target directory.
    pub(crate) target: PathBuf,
    /// Kernel, tools and test images, in folders named by a hash of what went into them.
    pub(crate) cache: PathBuf,
}

impl Paths {
    /// Finds them from the environment, as cargo sets it for `cargo xtask`.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the xtask crate has no parent directory")?
            .to_path_buf();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(directory) => std::path::absolute(directory)?,
            None => root.join("target"),
        };
        let cache = std::path::absolute(cache_directory()?)?;
        std::fs::create_dir_all(&cache).with_context(|| format!("cannot create the cache {}", cache.display()))?;
        Ok(Self { root, target, cache })
    }
}

/// `BULKHEAD_CACHE`, else `$XDG_CACHE_HOME/bulkhead`, else `~/.cache/bulkhead`.
fn cache_directory() -> anyhow::Result<PathBuf> {
    if let Some(directory) = std::env::var_os("BULKHEAD_CACHE") {
        return Ok(directory.into());
    }
    if let Some(directory) = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        return Ok(Path::new(&directory).join("bulkhead"));
    }
    let home = std::env::var_os("HOME").context("neither BULKHEAD_CACHE nor HOME is set: set one of them")?;
    Ok(Path::new(&home).join(".cache/bulkhead"))
}
