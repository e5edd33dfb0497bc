//! Downloads a layer into the store: hashed while it comes, continued where an earlier download broke off.
//!
//! ```text
//! ingest/HEX, locked ── append what is missing ──> all there and the digest right? ── rename ──> blobs/sha256/HEX
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use super::super::digest::Digest;
use super::super::local::FoundLayer;
use super::super::store::Store;
use super::Puller;
use super::error::{RegistryError, innermost};

/// Tries in a row that bring nothing before the download is given up.
const ATTEMPTS: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How often to look whether another command has finished the same download.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// A download that may have begun earlier.
struct Partial {
    file: File,
    path: PathBuf,
    hasher: Sha256,
    done_bytes: u64,
    /// Some of it was there before: if the digest is wrong, that part may be to blame.
    continued: bool,
}

/// What one request brought.
enum Outcome {
    /// The rest.
    Complete,
    /// Something, then the connection broke.
    Broken(String),
}

impl Puller {
    /// Brings a layer into the store and gives its file, complete and verified.
    pub(crate) async fn fetch_layer(
        &self,
        store: &Store,
        layer: &FoundLayer,
        cancelled: &AtomicBool,
        report: &(dyn Fn(u64) + Sync),
    ) -> Result<PathBuf, RegistryError> {
        let blob = store.blob_path(layer.digest);
        let Some(mut partial) = Partial::lock(store, layer, &blob, cancelled).await? else { return Ok(blob) };
        check_room(store, layer, partial.done_bytes)?;
        let result = self.complete(store, &mut partial, layer, cancelled, report).await;
        match result {
            Ok(()) => {
                let renamed = fs::rename(&partial.path, &blob);
                renamed.map_err(|source| store.failed("keep the download", &blob, source))?;
                Ok(blob)
            }
            Err(error) => {
                // What a broken connection has brought is kept; anything else would fail again.
                if !matches!(error, RegistryError::BrokeOff { .. } | RegistryError::Interrupted) || partial.is_empty() {
                    let _ = fs::remove_file(&partial.path);
                }
                Err(error)
            }
        }
    }

    async fn complete(
        &self,
        store: &Store,
        partial: &mut Partial,
        layer: &FoundLayer,
        cancelled: &AtomicBool,
        report: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        loop {
            self.fill(store, partial, layer, cancelled, report).await?;
            let actual = Digest::finish(partial.hasher.clone());
            if actual == layer.digest {
                return Ok(());
            }
            if !partial.continued {
                let registry = self.client.registry();
                return Err(RegistryError::LayerDigest { expected: layer.digest, actual, registry });
            }
            partial.restart().map_err(|source| store.failed("empty", &partial.path, source))?;
        }
    }

    /// Requests until all declared bytes are there.
    async fn fill(
        &self,
        store: &Store,
        partial: &mut Partial,
        layer: &FoundLayer,
        cancelled: &AtomicBool,
        report: &(dyn Fn(u64) + Sync),
    ) -> Result<(), RegistryError> {
        let mut attempts = 0;
        while partial.done_bytes < layer.size_bytes {
            let before = partial.done_bytes;
            let reason = match self.request_rest(store, partial, layer).await {
                Ok(response) => match self.receive(store, partial, layer, response, cancelled, report).await? {
                    Outcome::Complete if partial.done_bytes == layer.size_bytes => return Ok(()),
                    Outcome::Complete => "the registry sent less than it declared".to_owned(),
                    Outcome::Broken(reason) => reason,
                },
                Err(RegistryError::Unreachable { reason, .. }) => reason,
                Err(error) => return Err(error),
            };
            attempts = if partial.done_bytes > before { 1 } else { attempts + 1 };
            if attempts >= ATTEMPTS {
                return Err(self.broke_off(partial, layer, reason));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        Ok(())
    }

    /// Asks for what is missing; a registry that cannot continue sends everything again.
    async fn request_rest(
        &self,
        store: &Store,
        partial: &mut Partial,
        layer: &FoundLayer,
    ) -> Result<Response, RegistryError> {
        let what = format!("blobs/{}", layer.digest);
        if partial.done_bytes == 0 {
            return self.client.get(&what, &[]).await;
        }
        let range = (RANGE, format!("bytes={}-", partial.done_bytes));
        let response = self.client.get(&what, &[range]).await?;
        let expected = format!("bytes {}-", partial.done_bytes);
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let fits = range.is_some_and(|range| range.starts_with(&expected));
        if response.status() == StatusCode::PARTIAL_CONTENT && fits {
            return Ok(response);
        }
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && !partial.continued {
            return Err(self.broke_off(partial, layer, "the registry has no more of it".to_owned()));
        }
        partial.restart().map_err(|source| store.failed("empty", &partial.path, source))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        self.client.get(&what, &[]).await
    }

    fn broke_off(&self, partial: &Partial, layer: &FoundLayer, reason: String) -> RegistryError {
        RegistryError::BrokeOff {
            digest: layer.digest,
            registry: self.client.registry(),
            done_bytes: partial.done_bytes,
            total_bytes: layer.size_bytes,
            reason,
        }
    }

    async fn receive(
        &self,
        store: &Store,
        partial: &mut Partial,
        layer: &FoundLayer,
        mut response: Response,
        cancelled: &AtomicBool,
        report: &(dyn Fn(u64) + Sync),
    ) -> Result<Outcome, RegistryError> {
        loop {
            if cancelled.load(Ordering::Relaxed) {
                return Err(RegistryError::Interrupted);
            }
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(Outcome::Complete),
                Err(error) => return Ok(Outcome::Broken(innermost(&error))),
            };
            if partial.done_bytes + chunk.len() as u64 > layer.size_bytes {
                return Err(RegistryError::TooLong {
                    digest: layer.digest,
                    registry: self.client.registry(),
                    declared_bytes: layer.size_bytes,
                });
            }
            partial.append(&chunk).map_err(|source| store.failed("write", &partial.path, source))?;
            report(partial.done_bytes);
        }
    }
}

impl Partial {
    /// Opens and locks the download, once no other command works at it; `None` if the blob is there.
    async fn lock(
        store: &Store,
        layer: &FoundLayer,
        blob: &Path,
        cancelled: &AtomicBool,
    ) -> Result<Option<Self>, RegistryError> {
        let path = store.ingest_path(layer.digest);
        loop {
            if is_complete(blob, layer) {
                return Ok(None);
            }
            if cancelled.load(Ordering::Relaxed) {
                return Err(RegistryError::Interrupted);
            }
            match try_lock(&path).map_err(|source| store.failed("open", &path, source))? {
                // Between looking for the blob and locking, the other command may have finished.
                Some(_) if is_complete(blob, layer) => {
                    let _ = fs::remove_file(&path);
                    return Ok(None);
                }
                Some(file) => {
                    let opened = Self::take_up(file, path.clone(), layer.size_bytes).await?;
                    return opened.map(Some).map_err(|source| store.failed("read", &path, source).into());
                }
                None => tokio::time::sleep(LOCK_PAUSE).await,
            }
        }
    }

    /// Hashes what is there already.
    async fn take_up(file: File, path: PathBuf, size_bytes: u64) -> Result<io::Result<Self>, RegistryError> {
        let work = tokio::task::spawn_blocking(move || {
            let mut partial = Self { file, path, hasher: Sha256::new(), done_bytes: 0, continued: false };
            if partial.file.metadata()?.len() > size_bytes {
                partial.restart()?;
            }
            let mut buffer = vec![0; 128 * 1024];
            loop {
                let count = partial.file.read(&mut buffer)?;
                let read = buffer.get(..count).unwrap_or_default();
                if read.is_empty() {
                    partial.continued = partial.done_bytes > 0;
                    return Ok(partial);
                }
                partial.hasher.update(read);
                partial.done_bytes += read.len() as u64;
            }
        });
        work.await.map_err(|_| RegistryError::Interrupted)
    }

    /// A chunk is a few pages into the page cache: not worth a thread.
    fn append(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all(chunk)?;
        self.hasher.update(chunk);
        self.done_bytes += chunk.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hasher = Sha256::new();
        self.done_bytes = 0;
        self.continued = false;
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.done_bytes == 0
    }
}

fn is_complete(blob: &Path, layer: &FoundLayer) -> bool {
    fs::metadata(blob).is_ok_and(|metadata| metadata.len() == layer.size_bytes)
}

/// The locked file, or `None` if somebody else has it, or has just renamed it away.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    let same = fs::metadata(path).is_ok_and(|now| file.metadata().is_ok_and(|ours| ours.ino() == now.ino()));
    Ok(same.then_some(file))
}

fn check_room(store: &Store, layer: &FoundLayer, done_bytes: u64) -> Result<(), RegistryError> {
    let needed_bytes = layer.size_bytes.saturating_sub(done_bytes);
    let Some(free_bytes) = store.free_bytes().filter(|free| *free < needed_bytes) else { return Ok(()) };
    let dir = store.root().to_owned();
    Err(RegistryError::NoRoom { digest: layer.digest, needed_bytes, free_bytes, dir })
}
