//! Test and demo images: real OCI image layouts, made from Debian packages by our own code.
//!
//! ```text
//! Debian packages ──> Tree (demo)                         ┐
//! mmdebstrap ──tar──> Tree (base) ─┬─ diff ─> whiteouts   ├─> layers (tar, gzip) ─> blobs, config, manifest, index.json
//!            ──tar──> Tree (full) ─┘                      ┘
//! ```
//!
//! A finished image lies in `CACHE/images/<hash>/`, named by a hash of what it was made from, and appears by one rename.

mod debian;
mod demo;
mod diff;
mod layer;
mod layout;
mod program;
mod tree;

pub use layout::OciLayout;

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::Error;

/// Raised when the way images are built changes.
const REVISION: u32 = 1;

/// A small image with Debian's busybox as its shell and every applet; no registry, no root privilege needed.
///
/// # Errors
///
/// apt cannot download the package, or the cache cannot be written.
pub fn demo(cache: &Path) -> Result<OciLayout, Error> {
    let package = demo::Package::find()?;
    cached(cache, "demo", &package.name_and_version(), |folder| demo::build(&package, folder))
}

/// A Debian userland in two layers: the essential packages, and Python on top, with whiteouts and an opaque folder.
///
/// # Errors
///
/// mmdebstrap is missing or fails, or the cache cannot be written.
pub fn debian(cache: &Path) -> Result<OciLayout, Error> {
    let recipe = debian::Recipe::find()?;
    cached(cache, "debian", &recipe.describe(), |folder| debian::build(&recipe, folder))
}

/// Returns the layout for this recipe from the cache, or builds it there.
fn cached(
    cache: &Path,
    tag: &'static str,
    recipe: &str,
    build: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<OciLayout, Error> {
    let images = cache.join("images");
    fs::create_dir_all(&images).map_err(Error::io("create", &images))?;
    let key = hex::encode(Sha256::digest(format!("{REVISION}\n{tag}\n{recipe}")));
    let dir = images.join(key);
    let image = OciLayout { dir: dir.clone(), tag: tag.to_owned() };
    if dir.exists() {
        return Ok(image);
    }
    let work = tempfile::Builder::new()
        .prefix(".building-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir_in(&images)
        .map_err(Error::io("create a folder in", &images))?;
    build(work.path())?;
    match fs::rename(work.path(), &dir) {
        // Another process was faster; its image is as good as this one.
        Err(_) if dir.exists() => Ok(image),
        Err(error) => Err(Error::io("create", &dir)(error)),
        Ok(()) => {
            // The folder has moved: there is nothing left for the guard to remove.
            let _ = work.keep();
            Ok(image)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_built_once_per_recipe() {
        let cache = tempfile::tempdir().unwrap();
        let build = |recipe, content: &str| {
            cached(cache.path(), "x", recipe, |folder| {
                fs::write(folder.join("f"), content).map_err(Error::io("write", folder))
            })
            .unwrap()
        };
        let first = build("recipe", "1");
        let again = build("recipe", "2");
        assert_eq!(first.dir, again.dir);
        assert_eq!(fs::read_to_string(again.dir.join("f")).unwrap(), "1");
        assert_ne!(build("another recipe", "3").dir, first.dir);
    }

    #[test]
    fn a_failed_build_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let failure = || Error::NoArchive { wanted: "x".into() };
        assert!(cached(cache.path(), "x", "recipe", |_| Err(failure())).is_err());
        assert_eq!(fs::read_dir(cache.path().join("images")).unwrap().count(), 0);
    }
}
