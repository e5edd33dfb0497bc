//! `images.json`: which reference means which image, and which layers it needs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::super::digest::Digest;
use super::{Store, StoreError};

/// Version of the file; raised on an incompatible change.
const VERSION: u32 = 1;
/// Largest file in bytes: some ten thousand images.
const FILE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// One image under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// [`super::super::reference::ImageSource::store_key`].
    pub(crate) reference: String,
    /// Digest of the configuration: the image's id.
    pub(crate) id: Digest,
    /// Digest of the manifest; archives of old dockers have none.
    pub(crate) manifest: Option<Digest>,
    /// Chain ids, bottom layer first.
    pub(crate) layers: Vec<Digest>,
    /// Bytes of all files in all layers.
    pub(crate) size_bytes: u64,
    /// When the image came into the store under this name, seconds since 1970.
    pub(crate) stored_at_unix_s: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    images: Vec<Record>,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

impl Store {
    /// All images, sorted by reference.
    pub(crate) fn records(&self) -> Result<Vec<Record>, StoreError> {
        let path = self.root.join("images.json");
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(FILE_MAX_BYTES).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.failed("read", &path, source)),
        }
        let damaged = |source| StoreError::Records { path: path.clone(), source };
        let found = serde_json::from_slice::<VersionOnly>(&bytes).map_err(damaged)?.version;
        if found != VERSION {
            return Err(StoreError::Version { path, found, known: VERSION });
        }
        serde_json::from_slice::<Document>(&bytes).map(|document| document.images).map_err(damaged)
    }

    /// Changes the records; nobody else does so meanwhile.
    pub(crate) fn update_records<T>(&self, change: impl FnOnce(&mut Vec<Record>) -> T) -> Result<T, StoreError> {
        let _lock = self.lock_file("images.lock", FlockOperation::LockExclusive)?;
        let mut images = self.records()?;
        let answer = change(&mut images);
        images.sort_by(|a, b| a.reference.cmp(&b.reference));
        let path = self.root.join("images.json");
        let json = serde_json::to_vec_pretty(&Document { version: VERSION, images });
        let json = json.map_err(|source| self.failed("write", &path, source.into()))?;
        self.replace(&path, &json)?;
        Ok(answer)
    }

    /// Whether removing `record` would take a layer from a running sandbox.
    pub(crate) fn is_needed_by_sandbox(&self, record: &Record, others: &[Record]) -> bool {
        let kept: BTreeSet<Digest> = others.iter().flat_map(|other| other.layers.iter().copied()).collect();
        record.layers.iter().any(|layer| !kept.contains(layer) && self.layer_in_use(*layer))
    }
}
