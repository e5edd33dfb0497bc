//! What image layouts and docker archives have in common: blobs that lie somewhere in local files.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::config::{self, ConfigError, ParsedConfig};
use super::digest::Digest;
use super::manifest::{self, Descriptor, ManifestError};

/// Why an image cannot be taken from a local directory or archive.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No `oci-layout` file there.
    #[error(
        "{dir} is not an OCI image layout: it has no oci-layout and index.json. `skopeo copy SOURCE oci:DIR:TAG` makes one"
    )]
    NotALayout {
        /// The directory.
        dir: PathBuf,
    },
    /// Neither of the archives we know.
    #[error("{file} is not a docker archive: it has no manifest.json. `docker save -o FILE IMAGE` makes one")]
    NotAnArchive {
        /// The file.
        file: PathBuf,
    },
    /// The archive as a whole is compressed.
    #[error("{file} is compressed with {format}; decompress it first, for example with `{command} {file}`")]
    CompressedArchive {
        /// The file.
        file: PathBuf,
        /// Name of the format.
        format: &'static str,
        /// What decompresses it.
        command: &'static str,
    },
    /// The archive is damaged.
    #[error("{file} cannot be read as a docker archive: {reason}")]
    BadArchive {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The host's file system refused.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Other images, but not this one.
    #[error("{container} does not hold {wanted}; it holds {available}")]
    NoSuchImage {
        /// The directory or file.
        container: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What is there.
        available: String,
    },
    /// Several images, and none was chosen.
    #[error("{container} holds several images, name one of them: {available}")]
    Ambiguous {
        /// The directory or file.
        container: PathBuf,
        /// What is there.
        available: String,
    },
    /// A part of the image is not there.
    #[error("{container} lacks the blob {digest}: the copy is incomplete")]
    BlobMissing {
        /// The part.
        digest: Digest,
        /// The directory or file.
        container: PathBuf,
    },
    /// A part of the image has another size than the image says.
    #[error("blob {digest} in {container} has {actual} bytes instead of {expected}: the copy is incomplete or damaged")]
    BlobSize {
        /// The part.
        digest: Digest,
        /// The directory or file.
        container: PathBuf,
        /// What the image says.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// The manifest or index.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// A part of a local file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    pub(crate) size_bytes: u64,
}

/// Finds blobs by digest.
pub(crate) trait Blobs {
    /// Where the blob lies; its contents are not checked.
    fn locate(&self, digest: Digest) -> Result<Place, LocalError>;
    /// The directory or file, for messages.
    fn container(&self) -> &Path;
}

/// A layer of an image that was found.
#[derive(Clone, Debug)]
pub(crate) struct FoundLayer {
    /// Of the layer as it travels; of its tar stream where nothing else is known.
    pub(crate) digest: Digest,
    pub(crate) size_bytes: u64,
    /// Where it lies; `None` if it must be fetched from a registry.
    pub(crate) place: Option<Place>,
}

/// An image that was found, wherever it is: its documents are checked, its layers not read yet.
#[derive(Debug)]
pub(crate) struct FoundImage {
    pub(crate) manifest: Option<(Digest, Vec<u8>)>,
    pub(crate) config: Vec<u8>,
    pub(crate) parsed: ParsedConfig,
    /// Bottom layer first; as many as the configuration has diff ids.
    pub(crate) layers: Vec<FoundLayer>,
}

/// The configuration is wrong, or does not belong to the layers.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The manifest or index.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl From<DocumentError> for LocalError {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::Manifest(error) => Self::Manifest(error),
            DocumentError::Config(error) => Self::Config(error),
        }
    }
}

impl FoundImage {
    pub(crate) fn new(
        manifest: Option<(Digest, Vec<u8>)>,
        config: Vec<u8>,
        layers: Vec<FoundLayer>,
    ) -> Result<Self, DocumentError> {
        let parsed = config::parse(&config)?;
        if parsed.diff_ids.len() != layers.len() {
            let mismatch = ManifestError::LayerCount { manifest: layers.len(), config: parsed.diff_ids.len() };
            return Err(mismatch.into());
        }
        Ok(Self { manifest, config, parsed, layers })
    }
}

/// Finds a blob and checks its size.
pub(crate) fn locate(blobs: &dyn Blobs, descriptor: &Descriptor) -> Result<Place, LocalError> {
    let place = blobs.locate(descriptor.digest)?;
    if place.size_bytes != descriptor.size {
        return Err(LocalError::BlobSize {
            digest: descriptor.digest,
            container: blobs.container().to_owned(),
            expected: descriptor.size,
            actual: place.size_bytes,
        });
    }
    Ok(place)
}

/// Reads a small blob and checks it against its descriptor.
pub(crate) fn read_blob(
    blobs: &dyn Blobs,
    what: &'static str,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>, LocalError> {
    manifest::check_size(what, descriptor.size, limit)?;
    let bytes = read_document(what, &locate(blobs, descriptor)?, limit)?;
    manifest::verify(what, descriptor.digest, &bytes)?;
    Ok(bytes)
}

/// Reads a small part of a file.
pub(crate) fn read_document(what: &'static str, place: &Place, limit: u64) -> Result<Vec<u8>, LocalError> {
    manifest::check_size(what, place.size_bytes, limit)?;
    let read = || {
        let mut file = File::open(&place.file)?;
        file.seek(SeekFrom::Start(place.offset))?;
        let mut bytes = Vec::new();
        file.take(place.size_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| LocalError::Read { path: place.file.clone(), source })
}
