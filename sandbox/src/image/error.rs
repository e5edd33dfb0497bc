//! Why an image could not be made ready, listed or removed.

use super::digest::Digest;
use super::local::LocalError;
use super::reference::ReferenceError;
use super::registry::RegistryError;
use super::store::StoreError;
use super::unpack::UnpackError;

/// Why an image could not be made ready, listed or removed. Print it with its sources, `{:#}` of `anyhow`.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not the name of an image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The store on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry, or what it sent.
    #[error("cannot pull {reference}")]
    Pull {
        /// The image, completed.
        reference: String,
        /// Why not.
        source: Box<RegistryError>,
    },
    /// A local layout or archive.
    #[error("cannot use {reference}")]
    Local {
        /// The source as given.
        reference: String,
        /// Why not.
        source: Box<LocalError>,
    },
    /// A layer is damaged or hostile, or does not fit.
    #[error("cannot unpack layer {layer} of {reference}")]
    Layer {
        /// Digest of the layer.
        layer: Digest,
        /// The image.
        reference: String,
        /// Why not.
        source: Box<UnpackError>,
    },
    /// Not here, and not to be pulled.
    #[error("image {reference} is not in the store; run `sandbox pull {reference}` first")]
    NotPulled {
        /// The image, completed.
        reference: String,
    },
    /// Nothing of that name to remove.
    #[error("no image {name} in the store; `sandbox images` lists what is there")]
    Unknown {
        /// As given.
        name: String,
    },
    /// The start of several ids.
    #[error("{name} is the start of more than one image's id; give more of its digits")]
    AmbiguousId {
        /// As given.
        name: String,
    },
    /// A running sandbox would lose its files.
    #[error("image {name} is in use by a running sandbox; end the sandbox first")]
    InUse {
        /// As given.
        name: String,
    },
    /// The runtime was shut down, or a thread died.
    #[error("making image {reference} ready was interrupted")]
    Interrupted {
        /// The image.
        reference: String,
    },
}
