//! From a source to an image in the store: look up, fetch, unpack, settle, record.
//!
//! ```text
//! find documents ──> for each missing layer, 3 downloads and 2 unpackings at a time: fetch ──> unpack into staging
//!                ──> bottom to top: settle directories, make the layer appear ──> sync ──> record
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::config::{self, CONFIG_MAX_BYTES};
use super::digest::Digest;
use super::error::ImageError;
use super::local::{FoundImage, FoundLayer, Place};
use super::progress::{LayerSummary, Progress, ProgressEvent};
use super::reference::ImageSource;
use super::registry::Puller;
use super::store::{LayerLock, Lease, Record, Staging, Store};
use super::unpack::{self, ImplicitDirs, LayerBlob, LayerStats, Observer};
use super::{Image, docker_archive, oci_layout};

const DOWNLOADS_AT_ONCE: usize = 3;
/// Unpacking is bound by the CPU: hashing and decompressing.
const UNPACKINGS_AT_ONCE: usize = 2;

/// A layer unpacked, but not yet in its place.
struct Staged {
    staging: Staging,
    stats: LayerStats,
    implicit: ImplicitDirs,
}

/// What the tasks of one image share.
struct Job {
    store: Store,
    lease: Lease,
    reference: String,
    layers: Vec<FoundLayer>,
    diff_ids: Vec<Digest>,
    chain_ids: Vec<Digest>,
    puller: Option<Puller>,
    progress: Arc<dyn Progress>,
    /// Set when one layer has failed or the caller has gone away.
    cancelled: AtomicBool,
    downloads: Semaphore,
    unpackings: Semaphore,
}

/// Tells the tasks to stop when the caller goes away.
struct CancelOnDrop(Arc<Job>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Finds the documents of a local image.
pub(super) async fn find_local(source: &ImageSource) -> Result<FoundImage, ImageError> {
    let source = source.clone();
    let reference = source.to_string();
    let find = move || match &source {
        ImageSource::OciLayout { dir, tag } => oci_layout::find(dir, tag.as_deref()).map(Some),
        ImageSource::DockerArchive { file, reference } => docker_archive::find(file, reference.as_ref()).map(Some),
        ImageSource::Registry(_) => Ok(None),
    };
    let found = blocking(&reference, find).await?;
    let found = found.map_err(|source| ImageError::Local { reference: reference.clone(), source: Box::new(source) })?;
    found.ok_or(ImageError::NotPulled { reference })
}

/// Puts a found image into the store under `key`.
pub(super) async fn take_in(
    store: &Store,
    key: String,
    found: FoundImage,
    puller: Option<Puller>,
    progress: Arc<dyn Progress>,
) -> Result<Image, ImageError> {
    let leasing = store.clone();
    let lease = blocking(&key, move || leasing.lease()).await??;
    let job = Arc::new(Job {
        store: store.clone(),
        lease,
        reference: key.clone(),
        layers: found.layers,
        chain_ids: chain_ids(&found.parsed.diff_ids),
        diff_ids: found.parsed.diff_ids,
        puller,
        progress,
        cancelled: AtomicBool::new(false),
        downloads: Semaphore::new(DOWNLOADS_AT_ONCE),
        unpackings: Semaphore::new(UNPACKINGS_AT_ONCE),
    });
    let _cancel = CancelOnDrop(Arc::clone(&job));
    let staged = stage_missing(&job).await?;
    let (config, manifest) = (found.config, found.manifest);
    let finishing = Arc::clone(&job);
    let record = blocking(&key, move || {
        commit_all(&finishing, staged)?;
        record(&finishing, &config, manifest)
    });
    let record = record.await??;
    let image = open_with(&job.store, &job.lease, &record)?.ok_or(ImageError::NotPulled { reference: key })?;
    job.progress.event(ProgressEvent::Done { id: image.id });
    Ok(image)
}

/// Opens an image that the store has; `None` if a part of it is gone.
pub(super) fn open_stored(store: &Store, record: &Record) -> Result<Option<Image>, ImageError> {
    let lease = store.lease()?;
    open_with(store, &lease, record)
}

fn open_with(store: &Store, lease: &Lease, record: &Record) -> Result<Option<Image>, ImageError> {
    let Some(config) = store.read_blob(record.id, CONFIG_MAX_BYTES)? else { return Ok(None) };
    let Ok(parsed) = config::parse(&config) else { return Ok(None) };
    let mut layers: Vec<PathBuf> = Vec::new();
    let mut locks: Vec<LayerLock> = Vec::new();
    for chain_id in &record.layers {
        let Some(stats) = store.layer_stats(*chain_id) else { return Ok(None) };
        if stats.opaque_root {
            layers.clear();
        }
        layers.push(store.layer_fs(*chain_id));
        locks.push(store.lock_layer(*chain_id, lease)?);
    }
    Ok(Some(Image {
        id: record.id,
        reference: record.reference.clone(),
        config: parsed.config,
        layers,
        size_bytes: record.size_bytes,
        _locks: locks,
    }))
}

/// Fetches and unpacks what the store lacks; the answer has an entry for every layer.
async fn stage_missing(job: &Arc<Job>) -> Result<Vec<Option<Staged>>, ImageError> {
    let present: Vec<bool> = job.chain_ids.iter().map(|id| job.store.layer_stats(*id).is_some()).collect();
    let summaries: Vec<LayerSummary> = job
        .layers
        .iter()
        .zip(&present)
        .map(|(layer, present)| LayerSummary { digest: layer.digest, size_bytes: layer.size_bytes, present: *present })
        .collect();
    job.progress.event(ProgressEvent::Layers { layers: &summaries });
    let mut tasks = JoinSet::new();
    for (index, _) in present.iter().enumerate().filter(|(_, present)| !**present) {
        let job = Arc::clone(job);
        tasks.spawn(async move { stage(&job, index).await.map(|staged| (index, staged)) });
    }
    let mut staged: Vec<Option<Staged>> = present.iter().map(|_| None).collect();
    let mut failure = None;
    // After a failure the others are told to stop, and waited for: they remove what they have begun.
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok(Ok((index, layer))) => {
                if let Some(slot) = staged.get_mut(index) {
                    *slot = layer;
                }
            }
            Ok(Err(error)) => {
                job.cancelled.store(true, Ordering::Relaxed);
                failure.get_or_insert(error);
            }
            Err(_) => {
                job.cancelled.store(true, Ordering::Relaxed);
                failure.get_or_insert(ImageError::Interrupted { reference: job.reference.clone() });
            }
        }
    }
    failure.map_or(Ok(staged), Err)
}

/// Fetches and unpacks one layer; `None` if another command has made it appear meanwhile.
async fn stage(job: &Arc<Job>, index: usize) -> Result<Option<Staged>, ImageError> {
    let interrupted = || ImageError::Interrupted { reference: job.reference.clone() };
    let (Some(layer), Some(diff_id)) = (job.layers.get(index), job.diff_ids.get(index).copied()) else {
        return Err(interrupted());
    };
    let blob = match (&layer.place, &job.puller) {
        (Some(place), _) => local_blob(place, layer, diff_id),
        (None, Some(puller)) => {
            let _permit = job.downloads.acquire().await.map_err(|_| interrupted())?;
            fetch(job, puller, index, layer).await?
        }
        (None, None) => return Err(ImageError::NotPulled { reference: job.reference.clone() }),
    };
    let _permit = job.unpackings.acquire().await.map_err(|_| interrupted())?;
    let unpacking = Arc::clone(job);
    let staged = blocking(&job.reference, move || unpack_one(&unpacking, index, &blob, diff_id)).await??;
    job.progress.event(ProgressEvent::LayerDone { layer: index });
    Ok(staged)
}

async fn fetch(job: &Job, puller: &Puller, index: usize, layer: &FoundLayer) -> Result<LayerBlob, ImageError> {
    let report = |done_bytes| {
        let total_bytes = layer.size_bytes;
        job.progress.event(ProgressEvent::Downloading { layer: index, done_bytes, total_bytes });
    };
    let fetched = puller.fetch_layer(&job.store, layer, &job.cancelled, &report).await;
    let file =
        fetched.map_err(|source| ImageError::Pull { reference: job.reference.clone(), source: Box::new(source) })?;
    Ok(LayerBlob { file, offset: 0, size_bytes: layer.size_bytes, digest: None })
}

/// In a layout the digest is that of the blob; an archive has only the tar stream's.
fn local_blob(place: &Place, layer: &FoundLayer, diff_id: Digest) -> LayerBlob {
    LayerBlob {
        file: place.file.clone(),
        offset: place.offset,
        size_bytes: place.size_bytes,
        digest: (layer.digest != diff_id).then_some(layer.digest),
    }
}

fn unpack_one(job: &Job, index: usize, blob: &LayerBlob, diff_id: Digest) -> Result<Option<Staged>, ImageError> {
    let is_present = || job.chain_ids.get(index).is_some_and(|id| job.store.layer_stats(*id).is_some());
    if is_present() {
        return Ok(None);
    }
    let staging = job.store.stage(&job.lease)?;
    let report = |done_bytes| {
        let total_bytes = blob.size_bytes;
        job.progress.event(ProgressEvent::Unpacking { layer: index, done_bytes, total_bytes });
    };
    let observer = Observer { cancelled: &job.cancelled, read: &report };
    match unpack::unpack(blob, diff_id, &staging.fs(), job.store.root(), &observer) {
        Ok((stats, implicit)) => Ok(Some(Staged { staging, stats, implicit })),
        // Another command that was done with the same layer has dropped the download under us.
        Err(_) if is_present() => Ok(None),
        Err(source) => {
            let layer = job.layers.get(index).map_or(diff_id, |layer| layer.digest);
            // A download that turns out to be wrong would fail for ever.
            job.store.forget_download(layer);
            Err(ImageError::Layer { layer, reference: job.reference.clone(), source: Box::new(source) })
        }
    }
}

/// Makes the layers appear, bottom layer first, since a layer takes attributes from those below.
fn commit_all(job: &Job, staged: Vec<Option<Staged>>) -> Result<(), ImageError> {
    let mut lower: Vec<PathBuf> = Vec::new();
    for (staged, chain_id) in staged.into_iter().zip(&job.chain_ids) {
        let path = job.store.layer_fs(*chain_id);
        let mut opaque_root = false;
        if let Some(Staged { staging, stats, implicit }) = staged {
            opaque_root = stats.opaque_root;
            if !opaque_root {
                let settled = implicit.settle(&staging.fs(), &lower);
                settled.map_err(|source| job.store.failed("settle the directories of", &path, source))?;
            }
            job.store.commit(staging, *chain_id, &stats, &job.lease)?;
        } else if let Some(stats) = job.store.layer_stats(*chain_id) {
            opaque_root = stats.opaque_root;
        }
        if opaque_root {
            lower.clear();
        }
        lower.push(path);
    }
    Ok(())
}

fn record(job: &Job, config: &[u8], manifest: Option<(Digest, Vec<u8>)>) -> Result<Record, ImageError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let sizes = job.chain_ids.iter().filter_map(|id| job.store.layer_stats(*id)).map(|stats| stats.bytes);
    let record = Record {
        reference: job.reference.clone(),
        id: Digest::of(config),
        manifest: manifest.as_ref().map(|(digest, _)| *digest),
        layers: job.chain_ids.clone(),
        size_bytes: sizes.fold(0, u64::saturating_add),
        stored_at_unix_s: now.as_secs(),
    };
    let same = |known: &Record| Record { stored_at_unix_s: record.stored_at_unix_s, ..known.clone() } == record;
    if !job.store.records()?.iter().any(same) {
        job.store.write_blob(config)?;
        if let Some((_, bytes)) = &manifest {
            job.store.write_blob(bytes)?;
        }
        job.store.sync()?;
        let added = record.clone();
        job.store.update_records(|records| {
            records.retain(|known| known.reference != added.reference);
            records.push(added);
        })?;
    }
    for layer in &job.layers {
        job.store.forget_download(layer.digest);
    }
    Ok(record)
}

/// OCI image-spec 1.1, config.md, "Layer ChainID".
fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain_ids: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let chain_id = match chain_ids.last() {
            None => *diff_id,
            Some(below) => Digest::finish(Sha256::new().chain_update(format!("{below} {diff_id}"))),
        };
        chain_ids.push(chain_id);
    }
    chain_ids
}

/// Runs what blocks on a thread made for it.
pub(super) async fn blocking<T: Send + 'static>(
    reference: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ImageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ImageError::Interrupted { reference: reference.to_owned() })
}
