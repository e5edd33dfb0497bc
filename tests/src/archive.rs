//! Hand-made images: docker archives and OCI layouts whose layers hold exactly the entries a test wants, valid or not.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

/// One tar entry, written as it is: no name is checked, cleaned or shortened.
#[derive(Clone, Debug)]
pub struct Entry {
    header: tar::Header,
    contents: Vec<u8>,
    long_name: Option<Vec<u8>>,
}

impl Entry {
    /// A regular file.
    pub fn file(name: &str, contents: &[u8]) -> Self {
        Self::new(tar::EntryType::Regular, name, 0o644, contents)
    }

    /// An executable regular file.
    pub fn program(name: &str, contents: &[u8]) -> Self {
        Self::new(tar::EntryType::Regular, name, 0o755, contents)
    }

    /// A directory.
    pub fn directory(name: &str) -> Self {
        Self::new(tar::EntryType::Directory, name, 0o755, b"")
    }

    /// A symbolic link.
    pub fn symlink(name: &str, target: &str) -> Self {
        let mut entry = Self::new(tar::EntryType::Symlink, name, 0o777, b"");
        put(&mut entry.header.as_old_mut().linkname, target.as_bytes());
        entry
    }

    /// A hard link.
    pub fn hard_link(name: &str, target: &str) -> Self {
        let mut entry = Self::new(tar::EntryType::Link, name, 0o644, b"");
        put(&mut entry.header.as_old_mut().linkname, target.as_bytes());
        entry
    }

    /// A character device.
    ///
    /// # Panics
    ///
    /// Never: a ustar header has room for the numbers.
    pub fn device(name: &str, major: u32, minor: u32) -> Self {
        let mut entry = Self::new(tar::EntryType::Char, name, 0o666, b"");
        entry.header.set_device_major(major).expect("a ustar header");
        entry.header.set_device_minor(minor).expect("a ustar header");
        entry
    }

    /// A regular file whose header claims `size_bytes`, with nothing behind it.
    pub fn claiming(name: &str, size_bytes: u64) -> Self {
        let mut entry = Self::file(name, b"");
        entry.header.set_size(size_bytes);
        entry
    }

    /// With this owner.
    #[must_use]
    pub fn owned_by(mut self, uid: u64, gid: u64) -> Self {
        self.header.set_uid(uid);
        self.header.set_gid(gid);
        self
    }

    /// With these permission bits.
    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.header.set_mode(mode);
        self
    }

    fn new(kind: tar::EntryType, name: &str, mode: u32, contents: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(contents.len() as u64);
        let long_name = (name.len() > 100).then(|| name.as_bytes().to_vec());
        put(&mut header.as_old_mut().name, &name.as_bytes()[..name.len().min(100)]);
        Self { header, contents: contents.to_vec(), long_name }
    }
}

fn put(field: &mut [u8], value: &[u8]) {
    field[..value.len()].copy_from_slice(value);
}

/// A tar archive of `entries`.
///
/// # Panics
///
/// Never: it is written to memory.
pub fn layer(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        if let Some(name) = &entry.long_name {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::GNULongName);
            put(&mut header.as_old_mut().name, b"././@LongLink");
            header.set_size(name.len() as u64 + 1);
            header.set_cksum();
            tar.append(&header, [name.as_slice(), b"\0"].concat().as_slice()).expect("memory takes bytes");
        }
        let mut header = entry.header.clone();
        header.set_cksum();
        tar.append(&header, entry.contents.as_slice()).expect("memory takes bytes");
    }
    tar.into_inner().expect("memory takes bytes")
}

/// `bytes`, gzipped.
///
/// # Panics
///
/// Never: it is written to memory.
pub fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes bytes");
    encoder.finish().expect("memory takes bytes")
}

/// `sha256:` and the digest of `bytes` in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The image configuration for uncompressed `layers`, `config` as its `config` object.
pub fn image_config(layers: &[Vec<u8>], config: &serde_json::Value) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let value = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    value.to_string().into_bytes()
}

/// Writes a docker archive (`docker save`) of `layers`, bottom first, and returns its path.
///
/// # Panics
///
/// If the file cannot be written.
pub fn docker_archive(path: &Path, layers: &[Vec<u8>], config: &serde_json::Value) -> PathBuf {
    let names: Vec<String> = (0..layers.len()).map(|index| format!("{index}/layer.tar")).collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["hand-made:latest"], "Layers": names }]);
    let mut tar = tar::Builder::new(std::fs::File::create(path).expect("a new file"));
    let mut add = |name: &str, contents: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(contents.len() as u64);
        tar.append_data(&mut header, name, contents).expect("the file takes bytes");
    };
    add("config.json", &image_config(layers, config));
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer);
    }
    add("manifest.json", manifest.to_string().as_bytes());
    tar.into_inner().and_then(|mut file| file.flush()).expect("the file takes bytes");
    path.to_path_buf()
}

/// An OCI layout directory in the making; each blob can be spoilt before the test uses it.
pub struct OciLayout {
    directory: PathBuf,
    layers: Vec<String>,
}

impl OciLayout {
    /// Writes a layout of gzipped `layers`, bottom first, tagged `latest`.
    ///
    /// # Panics
    ///
    /// If the files cannot be written.
    pub fn write(directory: &Path, layers: &[Vec<u8>], config: &serde_json::Value) -> Self {
        std::fs::create_dir_all(directory.join("blobs/sha256")).expect("a new directory");
        let layout = Self { directory: directory.to_path_buf(), layers: Vec::new() };
        let config = image_config(layers, config);
        let compressed: Vec<Vec<u8>> = layers.iter().map(|layer| gzipped(layer)).collect();
        let descriptor = |media: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{media}"), "digest": layout.blob(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config),
            "layers": compressed.iter().map(|layer| descriptor("layer.v1.tar+gzip", layer)).collect::<Vec<_>>(),
        })
        .to_string();
        let mut entry = descriptor("manifest.v1+json", manifest.as_bytes());
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        std::fs::write(directory.join("index.json"), index.to_string()).expect("a new file");
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a new file");
        let layers = compressed.iter().map(|layer| digest(layer)).collect();
        Self { layers, ..layout }
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let name = digest(bytes);
        std::fs::write(self.blob_path(&name), bytes).expect("a new file");
        name
    }

    fn blob_path(&self, name: &str) -> PathBuf {
        self.directory.join("blobs").join(name.replace(':', "/"))
    }

    /// The file of a layer, counted from the bottom.
    pub fn layer_path(&self, index: usize) -> PathBuf {
        self.blob_path(&self.layers[index])
    }

    /// The layout as `sandbox run` takes it.
    pub fn reference(&self) -> String {
        format!("oci:{}:latest", self.directory.display())
    }
}
