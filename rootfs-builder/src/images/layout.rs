//! Writes an OCI image layout (image-layout.md, manifest.md and config.md of the specification).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::layer::{self, Layer};
use super::tree::Tree;
use crate::Error;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image layout on disk with one tagged image in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciLayout {
    /// The folder with `oci-layout`, `index.json` and `blobs`.
    pub dir: PathBuf,
    /// The image's name in `index.json`.
    pub tag: String,
}

impl OciLayout {
    /// The image as `sandbox run` takes it: `oci:DIR:TAG`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("oci:{}:{}", self.dir.display(), self.tag)
    }
}

/// What is to be in an image.
pub(super) struct Image<'a> {
    pub(super) tag: &'a str,
    /// From the lowest up.
    pub(super) layers: &'a [Tree],
    /// How each layer came to be, as `docker history` shows it.
    pub(super) history: &'a [&'a str],
    /// The `config` object of the image config: Env, Cmd and the like.
    pub(super) config: Value,
}

/// Writes a layout into an existing empty folder.
pub(super) fn write(image: &Image<'_>, dir: &Path) -> Result<(), Error> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(Error::io("create", &blobs))?;
    let mut layers = Vec::new();
    for tree in image.layers {
        layers.push(write_layer(tree, &blobs)?);
    }
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", layer.diff_id)).collect();
    let history: Vec<_> = image.history.iter().map(|created_by| json!({ "created_by": created_by })).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": image.config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    });
    let config = write_json(&config, CONFIG, &blobs)?;
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| json!({ "mediaType": LAYER, "digest": format!("sha256:{}", layer.digest), "size": layer.bytes }))
        .collect();
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    let mut descriptor = write_json(&manifest, MANIFEST, &blobs)?;
    if let Some(fields) = descriptor.as_object_mut() {
        fields.insert("annotations".into(), json!({ "org.opencontainers.image.ref.name": image.tag }));
        fields.insert("platform".into(), json!({ "architecture": "amd64", "os": "linux" }));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor] });
    write_file(&dir.join("index.json"), index.to_string().as_bytes())?;
    write_file(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}

fn write_layer(tree: &Tree, blobs: &Path) -> Result<Layer, Error> {
    let unnamed = blobs.join("layer");
    let layer = layer::write(tree, &unnamed).map_err(Error::io("write", &unnamed))?;
    let path = blobs.join(&layer.digest);
    fs::rename(&unnamed, &path).map_err(Error::io("create", &path))?;
    Ok(layer)
}

/// Stores a document as a blob and returns its descriptor.
fn write_json(document: &Value, media_type: &str, blobs: &Path) -> Result<Value, Error> {
    let bytes = document.to_string();
    let digest = hex::encode(Sha256::digest(&bytes));
    write_file(&blobs.join(&digest), bytes.as_bytes())?;
    Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() }))
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::super::tree::Node;
    use super::*;

    fn read(path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// Follows a descriptor: the blob must have its digest and size.
    fn blob(dir: &Path, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = fs::read(dir.join("blobs/sha256").join(digest)).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&bytes)), digest);
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    }

    #[test]
    fn every_descriptor_leads_to_a_blob_with_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let (mut base, mut top) = (Tree::default(), Tree::default());
        base.add("bin/x", Node::file("1", 0o755));
        top.add("bin/.wh.x", Node::file("", 0o644));
        let config = json!({ "Cmd": ["x"] });
        let image = Image { tag: "t", layers: &[base, top], history: &["base", "top"], config };
        write(&image, dir.path()).unwrap();

        assert_eq!(read(&dir.path().join("oci-layout"))["imageLayoutVersion"], "1.0.0");
        let descriptor = &read(&dir.path().join("index.json"))["manifests"][0];
        assert_eq!(descriptor["annotations"]["org.opencontainers.image.ref.name"], "t");
        let manifest: Value = serde_json::from_slice(&blob(dir.path(), descriptor)).unwrap();
        let config: Value = serde_json::from_slice(&blob(dir.path(), &manifest["config"])).unwrap();
        assert_eq!(config["config"]["Cmd"][0], "x");
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!((diff_ids.len(), layers.len(), config["history"].as_array().unwrap().len()), (2, 2, 2));
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let mut plain = Vec::new();
            std::io::copy(&mut flate2::read::GzDecoder::new(blob(dir.path(), layer).as_slice()), &mut plain).unwrap();
            assert_eq!(format!("sha256:{}", hex::encode(Sha256::digest(&plain))), diff_id.as_str().unwrap());
        }
        let blobs = fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count();
        assert_eq!(blobs, 4, "two layers, config, manifest, and nothing else");
    }
}
