//! What a pull reports while it runs; the command line draws it.

use super::digest::Digest;

/// Receives [`ProgressEvent`]s, from several threads at once.
pub trait Progress: Send + Sync {
    /// Called often (for every piece of data): must be cheap.
    fn event(&self, event: ProgressEvent<'_>);
}

/// One layer as its image's manifest declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSummary {
    /// Digest of the layer as it travels, compressed or not.
    pub digest: Digest,
    /// Bytes of it.
    pub size_bytes: u64,
    /// It is unpacked in the store already: nothing will be reported of it.
    pub present: bool,
}

/// A step of making an image ready. `layer` is an index into [`ProgressEvent::Layers`], bottom layer first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressEvent<'a> {
    /// The manifest of this image is being looked up.
    Resolving {
        /// The image, completed.
        reference: &'a str,
    },
    /// The layers are known.
    Layers {
        /// Bottom layer first.
        layers: &'a [LayerSummary],
    },
    /// Bytes have come from the registry; `done_bytes` starts above 0 if an earlier download is continued.
    Downloading {
        /// Which layer.
        layer: usize,
        /// Bytes here so far.
        done_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// Bytes of the layer have been unpacked.
    Unpacking {
        /// Which layer.
        layer: usize,
        /// Bytes of the layer as it travels, read so far.
        done_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// The layer is unpacked and verified.
    LayerDone {
        /// Which layer.
        layer: usize,
    },
    /// The image is in the store.
    Done {
        /// Its id.
        id: Digest,
    },
}

/// Reports to nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn event(&self, _event: ProgressEvent<'_>) {}
}
