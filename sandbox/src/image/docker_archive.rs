//! What `docker save` and `skopeo copy … docker-archive:` write: a tar file with `manifest.json`, read in place.
//!
//! Docker 25 and later write an OCI layout with a `manifest.json` beside it, so one reader serves both; an archive with
//! only the layout (`skopeo copy … oci-archive:`) is read as one. Layers stay where they are: their tar streams are read
//! from inside the archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::{CONFIG_MAX_BYTES, LAYERS_MAX};
use super::digest::Digest;
use super::excerpt::excerpt;
use super::local::{self, Blobs, FoundImage, FoundLayer, LocalError, Place};
use super::manifest::MANIFEST_MAX_BYTES;
use super::oci_layout;
use super::reference::Reference;
use super::unpack::index::{Member, index_archive};

/// How often a layer may be a symlink to another, as old dockers store layers that images share.
const SYMLINKS_MAX: usize = 8;

/// An archive and where in it each file lies.
struct Archive {
    file: PathBuf,
    members: BTreeMap<Vec<u8>, Member>,
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Blobs for Archive {
    fn locate(&self, digest: Digest) -> Result<Place, LocalError> {
        let missing = LocalError::BlobMissing { digest, container: self.file.clone() };
        self.member(&format!("blobs/sha256/{}", digest.hex())).ok_or(missing)
    }

    fn container(&self) -> &Path {
        &self.file
    }
}

impl Archive {
    fn open(path: &Path) -> Result<Self, LocalError> {
        let read = |source| LocalError::Read { path: path.to_owned(), source };
        let is_file = std::fs::metadata(path).map_err(read)?.is_file();
        if !is_file {
            return Err(LocalError::NotAnArchive { file: path.to_owned() });
        }
        let mut file = File::open(path).map_err(read)?;
        let mut start = Vec::new();
        Read::by_ref(&mut file).take(6).read_to_end(&mut start).map_err(read)?;
        let compressed =
            |format, command| Err(LocalError::CompressedArchive { file: path.to_owned(), format, command });
        match start.as_slice() {
            [0x1f, 0x8b, ..] => return compressed("gzip", "gunzip -k"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => return compressed("zstd", "zstd -dk"),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => return compressed("xz", "unxz -k"),
            [b'B', b'Z', b'h', ..] => return compressed("bzip2", "bunzip2 -k"),
            _ => {}
        }
        file.seek(SeekFrom::Start(0)).map_err(read)?;
        let members = index_archive(file)
            .map_err(|error| LocalError::BadArchive { file: path.to_owned(), reason: error.to_string() })?;
        Ok(Self { file: path.to_owned(), members })
    }

    /// A file of the archive, symlinks followed.
    fn member(&self, name: &str) -> Option<Place> {
        let mut name = name.as_bytes().to_vec();
        for _ in 0..=SYMLINKS_MAX {
            match self.members.get(&name)? {
                Member::File { offset, size_bytes } => {
                    return Some(Place { file: self.file.clone(), offset: *offset, size_bytes: *size_bytes });
                }
                Member::Symlink { target } => name = beside(&name, target)?,
            }
        }
        None
    }

    fn required(&self, name: &str) -> Result<Place, LocalError> {
        self.member(name).ok_or_else(|| LocalError::BadArchive {
            file: self.file.clone(),
            reason: format!("its manifest.json names `{}`, which it does not hold", excerpt(name)),
        })
    }

    fn choose(&self, entries: Vec<Entry>, reference: Option<&Reference>) -> Result<Entry, LocalError> {
        let tags = |entry: &Entry| entry.repo_tags.clone().unwrap_or_default();
        let names: Vec<String> = entries.iter().flat_map(tags).take(12).map(|tag| excerpt(&tag)).collect();
        let available = if names.is_empty() { "images without names".to_owned() } else { names.join(", ") };
        let container = self.file.clone();
        let Some(reference) = reference else {
            let mut entries = entries.into_iter();
            return match (entries.next(), entries.next()) {
                (Some(only), None) => Ok(only),
                (Some(_), Some(_)) => Err(LocalError::Ambiguous { container, available }),
                _ => Err(LocalError::NoSuchImage { container, wanted: "an image".to_owned(), available }),
            };
        };
        let named = |entry: &Entry| {
            tags(entry)
                .iter()
                .any(|tag| tag.parse::<Reference>().is_ok_and(|tag| tag.to_string() == reference.to_string()))
        };
        let wanted = format!("`{reference}`");
        entries.into_iter().find(named).ok_or(LocalError::NoSuchImage { container, wanted, available })
    }
}

/// Finds the image `reference` in the archive, or the only one.
pub(crate) fn find(path: &Path, reference: Option<&Reference>) -> Result<FoundImage, LocalError> {
    let archive = Archive::open(path)?;
    let Some(manifest) = archive.member("manifest.json") else {
        let Some(index) = archive.member("index.json") else {
            return Err(LocalError::NotAnArchive { file: path.to_owned() });
        };
        let index = local::read_document("index", &index, MANIFEST_MAX_BYTES)?;
        return oci_layout::find_in(&archive, &index, reference.and_then(Reference::tag));
    };
    let manifest = local::read_document("manifest", &manifest, MANIFEST_MAX_BYTES)?;
    let entries: Vec<Entry> = serde_json::from_slice(&manifest).map_err(|error| LocalError::BadArchive {
        file: path.to_owned(),
        reason: format!("its manifest.json is not valid: {error}"),
    })?;
    let entry = archive.choose(entries, reference)?;
    if entry.layers.len() > LAYERS_MAX {
        return Err(super::ManifestError::Layers { count: entry.layers.len() }.into());
    }
    let config = local::read_document("configuration", &archive.required(&entry.config)?, CONFIG_MAX_BYTES)?;
    let places = entry.layers.iter().map(|layer| archive.required(layer)).collect::<Result<Vec<_>, _>>()?;
    found(config, places)
}

fn found(config: Vec<u8>, places: Vec<Place>) -> Result<FoundImage, LocalError> {
    // The archive says nothing of its layers but their order: the configuration's diff ids are checked when unpacking.
    let diff_ids = super::config::parse(&config)?.diff_ids;
    let layers = places.into_iter().enumerate().map(|(index, place)| FoundLayer {
        digest: diff_ids.get(index).copied().unwrap_or_else(|| Digest::of(&[])),
        size_bytes: place.size_bytes,
        place: Some(place),
    });
    Ok(FoundImage::new(None, config, layers.collect())?)
}

/// The name that a symlink in `name`'s directory leads to.
fn beside(name: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut path: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    path.pop();
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                path.pop()?;
            }
            _ => path.push(component),
        }
    }
    Some(path.join(&b'/'))
}

#[cfg(test)]
mod tests;
