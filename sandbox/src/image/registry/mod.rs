//! Pulls from a registry (OCI distribution-spec 1.1, "Pull"): documents into memory, layers into the store.
//!
//! Talks HTTP itself, over `reqwest`: the client libraries at hand read answers of any length into memory and drop the
//! reason of a refused login.

mod auth;
mod client;
mod download;
mod error;

use reqwest::header::ACCEPT;

use super::config::CONFIG_MAX_BYTES;
use super::digest::Digest;
use super::local::{FoundImage, FoundLayer};
use super::manifest::{self, Descriptor, Document, INDEX_DEPTH_MAX, MANIFEST_MAX_BYTES, MANIFEST_TYPES, ManifestError};
use super::reference::Reference;
use client::Client;

pub use error::RegistryError;

/// One image of one registry.
pub(crate) struct Puller {
    reference: Reference,
    client: Client,
}

impl Puller {
    pub(crate) fn new(reference: &Reference) -> Result<Self, RegistryError> {
        Ok(Self { client: Client::new(reference)?, reference: reference.clone() })
    }

    /// Reads the image's documents and checks them against their digests.
    pub(crate) async fn find(&self) -> Result<FoundImage, RegistryError> {
        let wanted = self.reference.digest();
        let tag = self.reference.tag().unwrap_or("latest").to_owned();
        let mut name = wanted.map_or(tag, |digest| digest.to_string());
        let mut expected = wanted;
        for _ in 0..=INDEX_DEPTH_MAX {
            let bytes = self.manifest(&name).await?;
            let digest = Digest::of(&bytes);
            manifest::verify("manifest", expected.unwrap_or(digest), &bytes)?;
            match manifest::parse(&bytes)? {
                Document::Index(entries) => {
                    let chosen = manifest::choose_platform(&entries)?.digest;
                    name = chosen.to_string();
                    expected = Some(chosen);
                }
                Document::Manifest(manifest) => {
                    let config = self.config(&manifest.config).await?;
                    let layers = manifest.layers.iter().map(|layer| FoundLayer {
                        digest: layer.digest,
                        size_bytes: layer.size,
                        place: None,
                    });
                    return Ok(FoundImage::new(Some((digest, bytes)), config, layers.collect())?);
                }
            }
        }
        Err(ManifestError::TooDeep.into())
    }

    async fn manifest(&self, name: &str) -> Result<Vec<u8>, RegistryError> {
        let accept = MANIFEST_TYPES.join(", ");
        let response = self.client.get(&format!("manifests/{name}"), &[(ACCEPT, accept)]).await?;
        self.client.body("manifest", response, MANIFEST_MAX_BYTES).await
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        manifest::check_size("configuration", descriptor.size, CONFIG_MAX_BYTES)?;
        let response = self.client.get(&format!("blobs/{}", descriptor.digest), &[]).await?;
        let bytes = self.client.body("configuration", response, CONFIG_MAX_BYTES).await?;
        manifest::verify("configuration", descriptor.digest, &bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
