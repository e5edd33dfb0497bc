//! Why a registry did not give an image, in words that say what to do.

use std::error::Error as _;
use std::path::PathBuf;

use super::super::digest::Digest;
use super::super::excerpt::excerpt;
use super::super::local::DocumentError;
use super::super::manifest::ManifestError;
use super::super::store::StoreError;

/// Why a registry did not give an image.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No answer at all, or none that can be trusted.
    #[error("registry {registry} cannot be reached: {reason}; {fix}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// The innermost cause.
        reason: String,
        /// What to do.
        fix: &'static str,
    },
    /// Neither the name nor the tag is known.
    #[error("registry {registry} has no image {repository} with the tag or digest {wanted}; check the spelling")]
    NotFound {
        /// Host and port.
        registry: String,
        /// Of the image.
        repository: String,
        /// Tag or digest.
        wanted: String,
    },
    /// Private, or not there: registries tell only those who may know.
    #[error(
        "registry {registry} denies access to {repository}: {reason}; check the spelling and, if the image is private, run `docker login {registry}`"
    )]
    Denied {
        /// Host and port.
        registry: String,
        /// Of the image.
        repository: String,
        /// What the registry says.
        reason: String,
    },
    /// Too many pulls.
    #[error(
        "registry {registry} refuses more requests for now: {reason}; wait a while, or run `docker login {registry}` for a higher limit"
    )]
    TooManyRequests {
        /// Host and port.
        registry: String,
        /// What the registry says.
        reason: String,
    },
    /// Any other answer.
    #[error("registry {registry} answers {status} for the {what}: {reason}")]
    Status {
        /// Host and port.
        registry: String,
        /// HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
        /// What the registry says.
        reason: String,
    },
    /// The connection broke, again and again.
    #[error(
        "the download of {digest} from registry {registry} broke off after {done_bytes} of {total_bytes} bytes: {reason}; run the command again to continue it"
    )]
    BrokeOff {
        /// The layer.
        digest: Digest,
        /// Host and port.
        registry: String,
        /// Bytes that came, and are kept.
        done_bytes: u64,
        /// Bytes declared.
        total_bytes: u64,
        /// The innermost cause.
        reason: String,
    },
    /// The bytes are not the ones that were asked for.
    #[error(
        "layer {expected} from registry {registry} does not match its digest: it has {actual}; the registry's copy or the transfer is damaged, nothing of it was kept"
    )]
    LayerDigest {
        /// What the manifest says.
        expected: Digest,
        /// What came.
        actual: Digest,
        /// Host and port.
        registry: String,
    },
    /// More than the manifest says.
    #[error(
        "layer {digest} from registry {registry} is longer than the {declared_bytes} bytes that its manifest declares"
    )]
    TooLong {
        /// The layer.
        digest: Digest,
        /// Host and port.
        registry: String,
        /// What the manifest says.
        declared_bytes: u64,
    },
    /// It would not fit.
    #[error(
        "layer {digest} needs {needed_bytes} bytes, but only {free_bytes} are free in {dir}; free some space there, or set BULKHEAD_DATA to a directory on a larger disk"
    )]
    NoRoom {
        /// The layer.
        digest: Digest,
        /// Bytes still to come.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
        /// The store.
        dir: PathBuf,
    },
    /// The docker configuration has credentials that cannot be read.
    #[error("the credentials for registry {registry} cannot be read: {reason}; run `docker login {registry}` again")]
    Credentials {
        /// Host and port.
        registry: String,
        /// What is wrong.
        reason: String,
    },
    /// Manifest or configuration.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The store on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another part of the pull has failed, or the caller has gone away.
    #[error("the pull was interrupted")]
    Interrupted,
}

impl From<ManifestError> for RegistryError {
    fn from(error: ManifestError) -> Self {
        Self::Document(error.into())
    }
}

impl RegistryError {
    /// Tells a registry that is not there from one that cannot be trusted.
    pub(super) fn unreachable(registry: String, error: &reqwest::Error) -> Self {
        let reason = innermost(error);
        let (reason, fix) = if reason.contains("InvalidContentType") {
            let fix =
                "plain HTTP is spoken only to registries on this machine's loopback; give the registry a certificate";
            ("it does not speak TLS".to_owned(), fix)
        } else if reason.contains("No CA certificates") {
            let reason = "this machine trusts no certificate authority".to_owned();
            (reason, "install the package ca-certificates")
        } else if reason.contains("certificate") {
            (reason, "add the authority of its certificate to the system's, with update-ca-certificates")
        } else {
            (reason, "check its name, the network and, behind a proxy, the variable HTTPS_PROXY")
        };
        Self::Unreachable { registry, reason, fix }
    }
}

/// The innermost cause: the outer ones of an HTTP client only say that a request failed.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    excerpt(&text)
}
