//! What the tests of this module build images from: a tar writer that writes anything, however wrong, and layouts.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digest::Digest;
use super::{Image, ImageError, Images, NoProgress, PullPolicy};

/// A header's fields, ready to be spoilt.
#[derive(Clone)]
pub(crate) struct Raw<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: u64,
    pub(crate) link: &'a [u8],
    /// What the header declares, if not the length of the data.
    pub(crate) declared: Option<u64>,
    pub(crate) data: &'a [u8],
}

impl Default for Raw<'_> {
    fn default() -> Self {
        Self {
            name: b"file",
            kind: b'0',
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            link: b"",
            declared: None,
            data: b"",
        }
    }
}

/// Writes tar archives block by block, checking nothing.
#[derive(Clone, Default)]
pub(crate) struct TarBuilder(Vec<u8>);

impl TarBuilder {
    pub(crate) fn raw(mut self, raw: &Raw<'_>) -> Self {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &raw.name[..raw.name.len().min(100)]);
        put(100, format!("{:07o}", raw.mode).as_bytes());
        put(108, format!("{:07o}", raw.uid).as_bytes());
        put(116, format!("{:07o}", raw.gid).as_bytes());
        let size = raw.declared.unwrap_or(raw.data.len() as u64);
        if size < 1 << 33 {
            put(124, format!("{size:011o}").as_bytes());
        } else {
            put(124, &[0x80, 0, 0, 0]);
            put(128, &size.to_be_bytes());
        }
        put(136, format!("{:011o}", raw.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[raw.kind]);
        put(157, &raw.link[..raw.link.len().min(100)]);
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(raw.data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.raw(&Raw { name: name.as_bytes(), data, ..Raw::default() })
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.raw(&Raw { name: name.as_bytes(), kind: b'5', mode, ..Raw::default() })
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        let (name, link) = (name.as_bytes(), target.as_bytes());
        self.raw(&Raw { name, kind: b'2', mode: 0o777, link, ..Raw::default() })
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.raw(&Raw { name: name.as_bytes(), kind: b'1', link: target.as_bytes(), ..Raw::default() })
    }

    /// An extended header for the entry that follows.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(&Raw { name: b"pax", kind: b'x', data: &data, ..Raw::default() })
    }

    /// The archive with its end.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// The archive as it is.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.0
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A layer in a layout: its tar stream and how it travels.
pub(crate) struct Layer {
    pub(crate) tar: Vec<u8>,
    pub(crate) blob: Vec<u8>,
    pub(crate) media_type: &'static str,
}

impl Layer {
    pub(crate) fn plain(tar: Vec<u8>) -> Self {
        Self { blob: tar.clone(), tar, media_type: "application/vnd.oci.image.layer.v1.tar" }
    }

    pub(crate) fn gzip(tar: Vec<u8>) -> Self {
        Self { blob: gzip(&tar), tar, media_type: "application/vnd.oci.image.layer.v1.tar+gzip" }
    }
}

pub(crate) fn config_json(layers: &[Layer], config: &str) -> String {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", Digest::of(&layer.tar))).collect();
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
}

/// Writes an OCI layout with one image; gives its path.
pub(crate) fn layout(dir: &Path, tag: &str, layers: &[Layer], config: &str) -> PathBuf {
    layout_with_config(dir, tag, layers, &config_json(layers, config))
}

pub(crate) fn layout_with_config(dir: &Path, tag: &str, layers: &[Layer], config: &str) -> PathBuf {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], media_type: &str| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#, bytes.len())
    };
    let config = put(config.as_bytes(), "application/vnd.oci.image.config.v1+json");
    let layers: Vec<String> = layers.iter().map(|layer| put(&layer.blob, layer.media_type)).collect();
    let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(","));
    let manifest = put(manifest.as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    let annotation = format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{tag}"}}}}"#);
    let entry = manifest.strip_suffix('}').unwrap().to_owned() + &annotation;
    fs::write(dir.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#)).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    dir.to_owned()
}

/// Resolves a source with the default policy, in a runtime of its own.
pub(crate) fn resolve(images: &Images, source: &str) -> Result<Image, ImageError> {
    resolve_with(images, source, PullPolicy::Missing)
}

pub(crate) fn resolve_with(images: &Images, source: &str, policy: PullPolicy) -> Result<Image, ImageError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(images.resolve(&source.parse().unwrap(), policy, Arc::new(NoProgress)))
}

/// An error as the command line prints it: with all its sources.
pub(crate) fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Every path below a directory with its kind and mode, sorted.
pub(crate) fn tree(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let shown = path.strip_prefix(root).unwrap().display().to_string();
            if path.symlink_metadata().unwrap().is_dir() {
                found.push(format!("{shown}/"));
                walk(&path, root, found);
            } else {
                found.push(shown);
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

/// A tmpfs of a given size that is mounted nowhere: it lives as long as the descriptor, at the path given with it.
pub(crate) fn small_tmpfs(size: &str) -> (std::os::fd::OwnedFd, PathBuf) {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    };
    use std::os::fd::{AsFd as _, AsRawFd as _};
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(context.as_fd(), "size", size).unwrap();
    fsconfig_create(context.as_fd()).unwrap();
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    (mount, path)
}
