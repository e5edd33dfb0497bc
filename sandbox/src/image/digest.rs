//! SHA-256 digests in their two spellings: `sha256:<hex>` in documents, `<hex>` in file names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::excerpt::excerpt;

/// A SHA-256 digest, the only algorithm that registries use in practice (OCI image-spec 1.1, descriptor.md, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Why a string is no digest.
#[derive(Debug, thiserror::Error)]
#[error("`{value}` is not a digest of the form sha256:<64 lowercase hexadecimal digits>")]
pub struct DigestError {
    value: String,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// What a hasher has seen so far.
    pub(crate) fn finish(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// The 64 lowercase hexadecimal digits: the name of a blob or layer in the store.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first twelve digits, as tables show them.
    pub fn short(&self) -> String {
        self.hex().chars().take(12).collect()
    }

    /// Reads the 64 digits of a file name.
    pub(crate) fn from_hex(digits: &str) -> Option<Self> {
        let lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut raw = [0; 32];
        (lower && hex::decode_to_slice(digits, &mut raw).is_ok()).then_some(Self(raw))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(value: &str) -> Result<Self, DigestError> {
        value.strip_prefix("sha256:").and_then(Self::from_hex).ok_or_else(|| DigestError { value: excerpt(value) })
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(value: String) -> Result<Self, DigestError> {
        value.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
