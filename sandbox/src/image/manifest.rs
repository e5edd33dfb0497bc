//! Manifests and indexes (OCI image-spec 1.1, manifest.md and image-index.md; Docker's image manifest 2, schema 2).
//!
//! Both registries and local layouts hold them. What is not needed to run an image is skipped, not validated.

use serde::Deserialize;

use super::config::LAYERS_MAX;
use super::digest::Digest;
use super::excerpt::excerpt;

/// Largest manifest or index in bytes, the limit of common registries (OCI distribution-spec 1.1, "Pushing manifests").
pub(crate) const MANIFEST_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// How deep an index may point to another index.
pub(crate) const INDEX_DEPTH_MAX: usize = 4;

/// What a client accepts as an answer to a request for a manifest.
pub(crate) const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Layers we unpack. The compression is found by looking at the data, since builders label it wrongly at times.
const LAYER_TYPES: [&str; 7] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.container.image.rootfs.diff+x-gtar",
];

/// Why a manifest or index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON that the specification describes.
    #[error("the image's manifest is not valid JSON of a manifest or index")]
    Json(#[source] serde_json::Error),
    /// Bigger than registries themselves accept.
    #[error("the image's {what} is {bytes} bytes long; at most {limit} are accepted")]
    TooLarge {
        /// `index`, `manifest` or `configuration`.
        what: &'static str,
        /// What it has, or was read of it.
        bytes: u64,
        /// What it may have.
        limit: u64,
    },
    /// Docker's format of 2014.
    #[error(
        "the image's manifest has schema version {version}; only version 2 is supported. Push the image again with a current docker, skopeo or buildah"
    )]
    SchemaVersion {
        /// As declared.
        version: u64,
    },
    /// A Helm chart, a signature and the like.
    #[error("this is not a container image: its configuration has the media type `{media_type}`")]
    NotAnImage {
        /// As declared.
        media_type: String,
    },
    /// A layer in a format that is not a tar archive we read.
    #[error("layer {digest} has the media type `{media_type}`; tar layers, plain or with gzip or zstd, are supported")]
    LayerType {
        /// The layer.
        digest: Digest,
        /// As declared.
        media_type: String,
    },
    /// No variant of the image runs here.
    #[error("the image has no variant for linux/amd64; it has {available}")]
    NoPlatform {
        /// Platforms of the index.
        available: String,
    },
    /// An index that points to an index, and so on.
    #[error("the image's index points to another index more than {INDEX_DEPTH_MAX} times")]
    TooDeep,
    /// The configuration lists other layers than the manifest.
    #[error("the image's manifest lists {manifest} layers, its configuration {config}")]
    LayerCount {
        /// Layers of the manifest.
        manifest: usize,
        /// Layers of the configuration.
        config: usize,
    },
    /// More than can be stacked.
    #[error("the image has {count} layers; 1 to {LAYERS_MAX} are supported")]
    Layers {
        /// As declared.
        count: usize,
    },
    /// A document's bytes are not the ones its digest names.
    #[error("the image's {what} does not match its digest: expected {expected}, got {actual}")]
    Digest {
        /// `index`, `manifest` or `configuration`.
        what: &'static str,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
}

/// What a digest names, with its size.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    variant: Option<String>,
}

/// A manifest: one image for one platform.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// Bottom layer first.
    pub(crate) layers: Vec<Descriptor>,
}

/// Either of the documents that a reference may lead to.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Descriptor {
    /// The tag under which an image layout holds the image.
    pub(crate) fn ref_name(&self) -> Option<&str> {
        self.annotations.as_ref()?.get("org.opencontainers.image.ref.name").map(String::as_str)
    }

    fn is_linux_amd64(&self) -> bool {
        self.platform.as_ref().is_some_and(|platform| platform.os == "linux" && platform.architecture == "amd64")
    }
}

/// Parses a manifest or index of at most [`MANIFEST_MAX_BYTES`].
pub(crate) fn parse(bytes: &[u8]) -> Result<Document, ManifestError> {
    let raw: Raw = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
    let version = raw.schema_version.unwrap_or(2);
    if version != 2 {
        return Err(ManifestError::SchemaVersion { version });
    }
    if let Some(manifests) = raw.manifests {
        return Ok(Document::Index(manifests));
    }
    let (Some(config), Some(layers)) = (raw.config, raw.layers) else {
        let missing = serde::de::Error::custom("neither `manifests` nor `config` and `layers` are there");
        return Err(ManifestError::Json(missing));
    };
    check_manifest(Manifest { config, layers }).map(Document::Manifest)
}

fn check_manifest(manifest: Manifest) -> Result<Manifest, ManifestError> {
    if !CONFIG_TYPES.contains(&manifest.config.media_type.as_str()) {
        return Err(ManifestError::NotAnImage { media_type: excerpt(&manifest.config.media_type) });
    }
    let count = manifest.layers.len();
    if count == 0 || count > LAYERS_MAX {
        return Err(ManifestError::Layers { count });
    }
    match manifest.layers.iter().find(|layer| !LAYER_TYPES.contains(&layer.media_type.as_str())) {
        Some(layer) => Err(ManifestError::LayerType { digest: layer.digest, media_type: excerpt(&layer.media_type) }),
        None => Ok(manifest),
    }
}

/// The entry of an index that runs here: linux/amd64, the one without a variant if there are several.
pub(crate) fn choose_platform(entries: &[Descriptor]) -> Result<&Descriptor, ManifestError> {
    let plain = |entry: &&Descriptor| entry.platform.as_ref().is_none_or(|platform| platform.variant.is_none());
    let mut fitting = entries.iter().filter(|entry| entry.is_linux_amd64());
    if let Some(entry) = fitting.clone().find(plain).or_else(|| fitting.next()) {
        return Ok(entry);
    }
    // A layout made by hand may leave the platform out; the configuration is checked anyway.
    match entries {
        [only] if only.platform.is_none() => Ok(only),
        _ => Err(ManifestError::NoPlatform { available: platforms(entries) }),
    }
}

fn platforms(entries: &[Descriptor]) -> String {
    let mut names: Vec<String> = entries
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(|platform| excerpt(&format!("{}/{}", platform.os, platform.architecture)))
        .collect();
    names.sort();
    names.dedup();
    names.truncate(12);
    if names.is_empty() { "none at all".to_owned() } else { names.join(", ") }
}

/// Checks a document against the digest that named it.
pub(crate) fn verify(what: &'static str, expected: Digest, bytes: &[u8]) -> Result<(), ManifestError> {
    let actual = Digest::of(bytes);
    if actual == expected { Ok(()) } else { Err(ManifestError::Digest { what, expected, actual }) }
}

/// Checks a declared or read size against a limit.
pub(crate) fn check_size(what: &'static str, bytes: u64, limit: u64) -> Result<(), ManifestError> {
    if bytes <= limit { Ok(()) } else { Err(ManifestError::TooLarge { what, bytes, limit }) }
}

#[cfg(test)]
mod tests;
