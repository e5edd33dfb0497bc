//! Ids and names of sandboxes, checked once.

use std::fmt;

/// Longest name in bytes; it also fits a host name (RFC 1123).
const NAME_MAX_BYTES: usize = 63;

/// The id of a sandbox: 12 hexadecimal digits, random.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SandboxId(String);

impl SandboxId {
    pub(super) fn generate() -> Self {
        Self(random_hex())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 12 random hexadecimal digits.
pub(crate) fn random_hex() -> String {
    let mut bytes = [0_u8; 6];
    fill_random(&mut bytes);
    hex::encode(bytes)
}

/// Fills a buffer from the kernel's generator, which cannot fail once it is seeded.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        // Only an interrupting signal ends a call early.
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
}

/// The name a user gave a sandbox: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 63 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxName(String);

/// A name that cannot be one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sandbox name: use 1 to 63 letters, digits, `_`, `.` and `-`, the first a letter or a digit")]
pub struct NameError(String);

impl SandboxName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for SandboxName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let starts_well = name.starts_with(|first: char| first.is_ascii_alphanumeric());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if starts_well && name.len() <= NAME_MAX_BYTES && name.bytes().all(allowed) {
            Ok(Self(name.to_owned()))
        } else {
            Err(NameError(name.to_owned()))
        }
    }
}
