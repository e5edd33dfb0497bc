//! Images: found by reference, in a local layout or an archive, kept unpacked in a content-addressed store.
//!
//! ```text
//! reference.rs ─ what the user wrote ──> registry/ | oci_layout.rs | docker_archive.rs ─ documents (manifest.rs, config.rs)
//!                                                         │
//! resolve.rs ─ fetch, unpack/ each missing layer, record ─┴──> store/ ──> Image { config, layers }
//! ```
//!
//! The store owns all state on disk; see [`store`] for its locks and for what a crash leaves behind. Documents and layers
//! come from strangers: each is bounded and verified before it is believed.

pub mod config;
mod digest;
mod docker_archive;
mod error;
mod excerpt;
#[cfg(test)]
mod fixtures;
mod local;
mod manifest;
mod oci_layout;
mod progress;
mod reference;
mod registry;
mod resolve;
mod store;
mod unpack;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use config::{ConfigError, ImageConfig};
pub use digest::{Digest, DigestError};
pub use error::ImageError;
pub use local::LocalError;
pub use manifest::ManifestError;
pub use progress::{LayerSummary, NoProgress, Progress, ProgressEvent};
pub use reference::{ImageSource, Reference, ReferenceError};
pub use registry::RegistryError;
pub use store::StoreError;
pub use unpack::{EntryProblem, UnpackError};

use registry::Puller;
use store::{LayerLock, Record, Store};

/// Shortest start of an id that counts before a registry is asked: `ada` is an image's name, not a digest.
const ID_START_MIN: usize = 6;

/// When to ask a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// If the image is not in the store.
    #[default]
    Missing,
    /// Always; what has not changed is not fetched again.
    Always,
    /// Never.
    Never,
}

/// An image that is ready to be run. While it lives, its layers are locked: nobody removes them.
#[derive(Debug)]
pub struct Image {
    /// Digest of the image's configuration, as docker shows it.
    pub id: Digest,
    /// The name in the store: completed, paths made absolute.
    pub reference: String,
    /// What the image's author wants a container to start with.
    pub config: ImageConfig,
    /// Absolute directories, **bottom layer first**; at least one. Read-only by agreement: other sandboxes share them.
    pub layers: Vec<PathBuf>,
    /// Bytes of all files in all layers.
    pub size_bytes: u64,
    _locks: Vec<LayerLock>,
}

/// One line of `sandbox images`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ImageSummary {
    /// The name in the store.
    pub reference: String,
    /// Digest of the image's configuration.
    pub id: Digest,
    /// Number of layers.
    pub layers: usize,
    /// Bytes of all files in all layers; layers that images share count in each.
    pub size_bytes: u64,
    /// When it was stored under this name, seconds since 1970.
    pub stored_at_unix_s: u64,
}

/// The images of one data directory.
#[derive(Clone, Debug)]
pub struct Images {
    store: Store,
}

impl Images {
    /// Opens the store in `data_dir`, an absolute path; makes it if it is not there, and removes what killed commands have
    /// left in it.
    ///
    /// # Errors
    /// Not root, or the directory cannot be used.
    pub fn open(data_dir: &Path) -> Result<Self, ImageError> {
        Ok(Self { store: Store::open(data_dir)? })
    }

    /// Makes an image ready: finds it, fetches and unpacks what the store lacks of it. Runs in a tokio runtime. If the
    /// future is dropped, the work stops and removes what it has begun.
    ///
    /// Local layouts and archives are read every time, whatever `policy` says; their layers are unpacked once.
    ///
    /// # Errors
    /// The image does not exist, cannot be reached, is damaged or hostile, or does not fit on the disk. The store is then
    /// as it was before, except that a download is kept to be continued.
    pub async fn resolve(
        &self,
        source: &ImageSource,
        policy: PullPolicy,
        progress: Arc<dyn Progress>,
    ) -> Result<Image, ImageError> {
        let key = source.store_key();
        let ImageSource::Registry(reference) = source else {
            progress.event(ProgressEvent::Resolving { reference: &key });
            let found = resolve::find_local(source).await?;
            return resolve::take_in(&self.store, key, found, None, progress).await;
        };
        if policy != PullPolicy::Always
            && let Some(image) = self.stored(reference, &key)?
        {
            return Ok(image);
        }
        if policy == PullPolicy::Never {
            return Err(ImageError::NotPulled { reference: key });
        }
        progress.event(ProgressEvent::Resolving { reference: &key });
        let pulled = async {
            let puller = Puller::new(reference)?;
            let found = puller.find().await?;
            Ok((puller, found))
        };
        let (puller, found) =
            pulled.await.map_err(|source| ImageError::Pull { reference: key.clone(), source: Box::new(source) })?;
        resolve::take_in(&self.store, key, found, Some(puller), progress).await
    }

    /// All images, sorted by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let summary = |record: Record| ImageSummary {
            reference: record.reference,
            id: record.id,
            layers: record.layers.len(),
            size_bytes: record.size_bytes,
            stored_at_unix_s: record.stored_at_unix_s,
        };
        Ok(self.store.records()?.into_iter().map(summary).collect())
    }

    /// Removes the image that `name` names, a reference or the start of an id, and every layer that no other image needs.
    /// Returns the names that are gone: an id may have several.
    ///
    /// # Errors
    /// There is no such image, the start fits several ids, or a running sandbox uses the image.
    pub fn remove(&self, name: &str) -> Result<Vec<String>, ImageError> {
        let records = self.store.records()?;
        let key = name.parse::<ImageSource>().map_or_else(|_| name.to_owned(), |source| source.store_key());
        let doomed: Vec<Record> =
            match records.iter().find(|record| record.reference == key || record.reference == name) {
                Some(record) => vec![record.clone()],
                None => {
                    let id = find_id(&records, name)?.ok_or_else(|| ImageError::Unknown { name: name.to_owned() })?;
                    records.iter().filter(|record| record.id == id).cloned().collect()
                }
            };
        let kept: Vec<Record> = records.iter().filter(|record| !doomed.contains(record)).cloned().collect();
        if doomed.iter().any(|record| self.store.is_needed_by_sandbox(record, &kept)) {
            return Err(ImageError::InUse { name: name.to_owned() });
        }
        self.forget(&doomed, &kept)?;
        let forgotten: Vec<Digest> =
            doomed.iter().flat_map(|record| record.manifest.into_iter().chain([record.id])).collect();
        self.store.sweep(&forgotten)?;
        Ok(doomed.into_iter().map(|record| record.reference).collect())
    }

    /// Takes records out of the list, even if the disk is too full for writing the shorter one.
    fn forget(&self, doomed: &[Record], kept: &[Record]) -> Result<(), ImageError> {
        let forget = || self.store.update_records(|records| records.retain(|record| !doomed.contains(record)));
        let full = match forget() {
            Err(full @ StoreError::DiskFull { .. }) => full,
            other => return Ok(other?),
        };
        let needed = |layer: &Digest| kept.iter().any(|record| record.layers.contains(layer));
        let layers: Vec<Digest> =
            doomed.iter().flat_map(|record| record.layers.iter().copied()).filter(|layer| !needed(layer)).collect();
        if self.store.discard_layers(&layers)? { Ok(forget()?) } else { Err(full.into()) }
    }

    /// The image from the store by name, or else by the start of its id.
    fn stored(&self, reference: &Reference, key: &str) -> Result<Option<Image>, ImageError> {
        let records = self.store.records()?;
        let named = records.iter().find(|record| record.reference == key);
        let record = match named {
            Some(record) => Some(record),
            None => {
                let written = reference.written();
                let id = if written.len() < ID_START_MIN { None } else { find_id(&records, written)? };
                records.iter().find(|record| Some(record.id) == id)
            }
        };
        record.map_or(Ok(None), |record| resolve::open_stored(&self.store, record))
    }
}

/// The id that starts with `name`, with or without `sha256:`.
fn find_id(records: &[Record], name: &str) -> Result<Option<Digest>, ImageError> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut ids: Vec<Digest> =
        records.iter().map(|record| record.id).filter(|id| id.hex().starts_with(digits)).collect();
    ids.sort();
    ids.dedup();
    match ids.as_slice() {
        [] => Ok(None),
        [id] => Ok(Some(*id)),
        _ => Err(ImageError::AmbiguousId { name: name.to_owned() }),
    }
}
