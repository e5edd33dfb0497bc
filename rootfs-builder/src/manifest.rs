//! `manifest.json`: what the installed guest files are, so that a report or a test can name them exactly.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::guest::write_atomically;
use crate::{Error, digest};

/// Versions, digests and sizes of the guest's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of Bulkhead.
    pub version: String,
    /// The archive the kernel unpacks.
    pub initramfs: FileDigest,
    /// The program in it.
    pub agent: FileDigest,
    /// The kernel that is installed beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Kernel>,
}

/// A file's name, digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Name without folders.
    pub name: String,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// Length.
    pub bytes: u64,
}

/// A kernel's version and file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// What `uname -r` prints in the guest.
    pub version: String,
    /// The ELF file.
    pub vmlinux: FileDigest,
}

impl Manifest {
    /// Name of the file, next to the initramfs.
    pub const FILE: &'static str = "manifest.json";

    pub(crate) fn new(initramfs: FileDigest, agent: FileDigest) -> Self {
        Self { version: env!("CARGO_PKG_VERSION").into(), initramfs, agent, kernel: None }
    }

    /// Adds the kernel that is installed beside the initramfs.
    ///
    /// # Errors
    ///
    /// The kernel cannot be read.
    pub fn add_kernel(&mut self, version: &str, vmlinux: &Path) -> Result<(), Error> {
        self.kernel = Some(Kernel { version: version.to_owned(), vmlinux: FileDigest::of(vmlinux)? });
        Ok(())
    }

    /// Writes `manifest.json` into a folder, replacing an older one in one step.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(Self::FILE);
        let json = serde_json::to_vec_pretty(self).map_err(|error| Error::io("write", &path)(error.into()))?;
        write_atomically(&path, &[json, b"\n".to_vec()].concat())
    }
}

impl FileDigest {
    /// Describes a file.
    ///
    /// # Errors
    ///
    /// The file cannot be read or its name is not UTF-8.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let mut file = std::fs::File::open(path).map_err(Error::io("read", path))?;
        let (sha256, bytes) = digest::of_reader(&mut file).map_err(Error::io("read", path))?;
        Ok(Self { name: name(path)?, sha256, bytes })
    }

    pub(crate) fn of_bytes(path: &Path, content: &[u8]) -> Result<Self, Error> {
        Ok(Self { name: name(path)?, sha256: hex::encode(Sha256::digest(content)), bytes: content.len() as u64 })
    }
}

fn name(path: &Path) -> Result<String, Error> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| Error::io("name", path)(std::io::ErrorKind::InvalidInput.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let vmlinux = folder.path().join("vmlinux");
        std::fs::write(&vmlinux, "abc").unwrap();
        let agent = FileDigest::of_bytes(Path::new("x/agent"), b"a").unwrap();
        let mut manifest = Manifest::new(FileDigest::of_bytes(Path::new("i.cpio"), b"b").unwrap(), agent);
        manifest.add_kernel("6.12.1-test", &vmlinux).unwrap();
        manifest.write(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(Manifest::FILE)).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
        // SHA-256 of "abc" (FIPS 180-2, appendix B.1).
        assert!(text.contains("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "{text}");
        assert!(text.contains("\"name\": \"agent\""), "{text}");
    }
}
