//! `manifest.json`: what a kernel in the cache was made of.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Versions, digests and sizes of one build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What `uname -r` prints in the guest.
    pub version: String,
    /// Version of the source as its packager names it; empty if the user gave only a digest.
    pub source_version: String,
    /// SHA-256 of the source tarball.
    pub source_sha256: String,
    /// SHA-256 of the merged fragments, reasons left out.
    pub fragments_sha256: String,
    /// First lines of the compiler's and the linker's version.
    pub toolchain: Vec<String>,
    /// [`crate::BUILDER_REVISION`] at the time.
    pub builder_revision: u32,
    /// SHA-256 of `vmlinux`.
    pub vmlinux_sha256: String,
    /// Size of `vmlinux`.
    pub vmlinux_bytes: u64,
    /// SHA-256 of `config`.
    pub config_sha256: String,
}

impl Manifest {
    /// Name of the file, next to `vmlinux`.
    pub const FILE: &'static str = "manifest.json";

    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(Self::FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        serde_json::from_str(&text).map_err(|source| Error::Manifest { path, source })
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(Self::FILE);
        let text =
            serde_json::to_string_pretty(self).map_err(|source| Error::Manifest { path: path.clone(), source })?;
        std::fs::write(&path, text + "\n").map_err(Error::io("write", &path))
    }
}
