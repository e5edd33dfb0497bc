//! Layers, honest and hostile: what appears in the directory, what the error says, and that nothing appears outside.

mod faithful;
mod fuzz;
mod hostile;
mod streams;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::super::digest::Digest;
use super::{ImplicitDirs, LayerBlob, LayerStats, Observer, UnpackError, unpack};

/// A directory with the layer in `layer/` and nothing else that unpacking may touch.
struct Arena {
    dir: tempfile::TempDir,
}

impl Arena {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("layer")).unwrap();
        Self { dir }
    }

    fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    fn unpack(&self, tar: &[u8]) -> Result<(LayerStats, ImplicitDirs), UnpackError> {
        self.unpack_blob(tar, Digest::of(tar), None)
    }

    fn unpack_blob(
        &self,
        blob: &[u8],
        diff_id: Digest,
        digest: Option<Digest>,
    ) -> Result<(LayerStats, ImplicitDirs), UnpackError> {
        let file = self.dir.path().join("blob");
        std::fs::write(&file, blob).unwrap();
        let blob = LayerBlob { file, offset: 0, size_bytes: blob.len() as u64, digest };
        let observer = Observer { cancelled: &AtomicBool::new(false), read: &|_| {} };
        unpack(&blob, diff_id, &self.layer(), Path::new("/store"), &observer)
    }

    /// The names beside the layer: what a hostile layer must not change.
    fn outside(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Unpacks what must fail, and gives the message with all its sources.
fn refused(tar: &[u8]) -> String {
    let arena = Arena::new();
    let error = arena.unpack(tar).unwrap_err();
    assert_eq!(arena.outside(), ["blob", "layer"]);
    super::super::fixtures::full(&error)
}

/// An extended attribute, if it is there.
fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    value.truncate(length);
    Some(value)
}
