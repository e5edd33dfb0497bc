//! Images in an OCI image layout (OCI image-spec 1.1, image-layout.md): a directory, or the same inside an archive.

use std::path::{Path, PathBuf};

use super::config::CONFIG_MAX_BYTES;
use super::digest::Digest;
use super::excerpt::excerpt;
use super::local::{self, Blobs, FoundImage, FoundLayer, LocalError, Place};
use super::manifest::{self, Descriptor, Document, INDEX_DEPTH_MAX, MANIFEST_MAX_BYTES, Manifest, ManifestError};

/// A layout directory.
struct LayoutDir {
    dir: PathBuf,
}

impl Blobs for LayoutDir {
    fn locate(&self, digest: Digest) -> Result<Place, LocalError> {
        let path = self.dir.join("blobs/sha256").join(digest.hex());
        match std::fs::metadata(&path) {
            // Anything but a file, such as a pipe, would keep us waiting.
            Ok(metadata) if metadata.is_file() => Ok(Place { file: path, offset: 0, size_bytes: metadata.len() }),
            _ => Err(LocalError::BlobMissing { digest, container: self.dir.clone() }),
        }
    }

    fn container(&self) -> &Path {
        &self.dir
    }
}

/// Finds the image `tag` in the layout `dir`.
pub(crate) fn find(dir: &Path, tag: Option<&str>) -> Result<FoundImage, LocalError> {
    if !dir.join("oci-layout").is_file() {
        return Err(LocalError::NotALayout { dir: dir.to_owned() });
    }
    let path = dir.join("index.json");
    let size_bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    let index = local::read_document("index", &Place { file: path, offset: 0, size_bytes }, MANIFEST_MAX_BYTES)?;
    find_in(&LayoutDir { dir: dir.to_owned() }, &index, tag)
}

/// Finds the image `tag` in a layout whose `index.json` has been read.
pub(crate) fn find_in(blobs: &dyn Blobs, index: &[u8], tag: Option<&str>) -> Result<FoundImage, LocalError> {
    let Document::Index(entries) = manifest::parse(index)? else {
        return Err(LocalError::NotALayout { dir: blobs.container().to_owned() });
    };
    let mut entry = choose(blobs, &entries, tag)?.clone();
    for _ in 0..INDEX_DEPTH_MAX {
        let bytes = local::read_blob(blobs, "manifest", &entry, MANIFEST_MAX_BYTES)?;
        match manifest::parse(&bytes)? {
            Document::Index(entries) => entry = manifest::choose_platform(&entries)?.clone(),
            Document::Manifest(manifest) => return found(blobs, &entry, bytes, &manifest),
        }
    }
    Err(ManifestError::TooDeep.into())
}

/// The entry of `index.json` that is meant.
fn choose(blobs: &dyn Blobs, entries: &[Descriptor], tag: Option<&str>) -> Result<Descriptor, LocalError> {
    let fitting = |entry: &&Descriptor| tag.is_none() || entry.ref_name() == tag;
    let candidates: Vec<Descriptor> = entries.iter().filter(fitting).cloned().collect();
    let container = blobs.container().to_owned();
    match candidates.as_slice() {
        [] => Err(LocalError::NoSuchImage {
            container,
            wanted: tag.map_or_else(|| "an image".to_owned(), |tag| format!("the tag `{}`", excerpt(tag))),
            available: names(entries),
        }),
        [only] => Ok(only.clone()),
        [first, rest @ ..] if rest.iter().any(|entry| entry.ref_name() != first.ref_name()) => {
            Err(LocalError::Ambiguous { container, available: names(entries) })
        }
        // One name for several platforms.
        several => Ok(manifest::choose_platform(several)?.clone()),
    }
}

fn names(entries: &[Descriptor]) -> String {
    let names: Vec<String> = entries.iter().filter_map(Descriptor::ref_name).take(12).map(excerpt).collect();
    if names.is_empty() { "no tag at all".to_owned() } else { names.join(", ") }
}

fn found(
    blobs: &dyn Blobs,
    entry: &Descriptor,
    manifest_bytes: Vec<u8>,
    manifest: &Manifest,
) -> Result<FoundImage, LocalError> {
    let config = local::read_blob(blobs, "configuration", &manifest.config, CONFIG_MAX_BYTES)?;
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for layer in &manifest.layers {
        let place = local::locate(blobs, layer)?;
        layers.push(FoundLayer { digest: layer.digest, size_bytes: layer.size, place: Some(place) });
    }
    Ok(FoundImage::new(Some((entry.digest, manifest_bytes)), config, layers)?)
}

#[cfg(test)]
mod tests;
