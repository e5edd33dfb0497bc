//! Where an image comes from, as a user writes it: a docker-style reference, `oci:DIR[:TAG]` or `docker-archive:FILE[:REF]`.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::digest::{Digest, DigestError};

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest `domain/repository` (distribution reference grammar).
const NAME_MAX_BYTES: usize = 255;
/// Longest tag (OCI distribution-spec 1.1, "Pulling manifests").
const TAG_MAX_BYTES: usize = 128;

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// A registry, or what was pulled from one earlier.
    Registry(Reference),
    /// An OCI image layout directory.
    OciLayout {
        /// The directory that holds `oci-layout` and `index.json`.
        dir: PathBuf,
        /// `org.opencontainers.image.ref.name` of the image; may be left out if the layout holds one image.
        tag: Option<String>,
    },
    /// What `docker save` writes.
    DockerArchive {
        /// The tar file, not compressed.
        file: PathBuf,
        /// The image in it; may be left out if the archive holds one image.
        reference: Option<Reference>,
    },
}

/// A docker-style reference, completed as docker does: `busybox` is `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    domain: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
    /// As the user wrote it: may be the start of an image's id.
    written: String,
}

/// Why a string names no image.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing there.
    #[error("the image name is empty; give one such as busybox, localhost:5000/app:1.0 or oci:DIR:TAG")]
    Empty,
    /// An upper-case letter in the repository.
    #[error("image name `{name}`: the repository `{repository}` must be in lower case; try `{fixed}`")]
    UpperCase {
        /// As written.
        name: String,
        /// The part that is wrong.
        repository: String,
        /// The same in lower case.
        fixed: String,
    },
    /// A component of the repository breaks the grammar.
    #[error(
        "image name `{name}`: `{component}` is not a valid part of a repository: lower-case letters and digits, separated by `.`, `_`, `__` or `-`"
    )]
    Repository {
        /// As written.
        name: String,
        /// The part that is wrong.
        component: String,
    },
    /// The registry's host or port is wrong.
    #[error("image name `{name}`: `{domain}` is not a registry's HOST or HOST:PORT")]
    Domain {
        /// As written.
        name: String,
        /// The part that is wrong.
        domain: String,
    },
    /// The tag breaks the grammar.
    #[error(
        "image name `{name}`: `{tag}` is not a valid tag: letters, digits, `_`, `.` and `-`, at most 128, the first a letter, digit or `_`"
    )]
    Tag {
        /// As written.
        name: String,
        /// The part that is wrong.
        tag: String,
    },
    /// The digest is none.
    #[error("image name `{name}`")]
    Digest {
        /// As written.
        name: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// Longer than registries accept.
    #[error("image name of {length} bytes: at most {NAME_MAX_BYTES} are allowed")]
    TooLong {
        /// Bytes of domain and repository.
        length: usize,
    },
    /// `oci:` or `docker-archive:` without a path.
    #[error("`{name}` names no path; write {form}")]
    NoPath {
        /// As written.
        name: String,
        /// The right form.
        form: &'static str,
    },
}

impl FromStr for ImageSource {
    type Err = ReferenceError;

    fn from_str(name: &str) -> Result<Self, ReferenceError> {
        if let Some(rest) = name.strip_prefix("oci:") {
            let (dir, tag) = split_path(name, rest, "oci:DIR or oci:DIR:TAG")?;
            return Ok(Self::OciLayout { dir, tag: tag.map(str::to_owned) });
        }
        if let Some(rest) = name.strip_prefix("docker-archive:") {
            let (file, reference) = split_path(name, rest, "docker-archive:FILE or docker-archive:FILE:REF")?;
            return Ok(Self::DockerArchive { file, reference: reference.map(Reference::from_str).transpose()? });
        }
        name.parse().map(Self::Registry)
    }
}

/// Splits `PATH[:REST]` at the first colon, as skopeo does.
fn split_path<'a>(name: &str, rest: &'a str, form: &'static str) -> Result<(PathBuf, Option<&'a str>), ReferenceError> {
    let (path, after) = match rest.split_once(':') {
        Some((path, after)) => (path, Some(after)),
        None => (rest, None),
    };
    if path.is_empty() || after.is_some_and(str::is_empty) {
        return Err(ReferenceError::NoPath { name: name.to_owned(), form });
    }
    Ok((PathBuf::from(path), after))
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::OciLayout { dir, tag: Some(tag) } => write!(f, "oci:{}:{tag}", dir.display()),
            Self::OciLayout { dir, tag: None } => write!(f, "oci:{}", dir.display()),
            Self::DockerArchive { file, reference: Some(reference) } => {
                write!(f, "docker-archive:{}:{reference}", file.display())
            }
            Self::DockerArchive { file, reference: None } => write!(f, "docker-archive:{}", file.display()),
        }
    }
}

impl ImageSource {
    /// The name under which the store remembers the image: the same for every spelling that means the same image.
    pub(crate) fn store_key(&self) -> String {
        let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        match self {
            Self::Registry(reference) => reference.to_string(),
            Self::OciLayout { dir, tag } => Self::OciLayout { dir: absolute(dir), tag: tag.clone() }.to_string(),
            Self::DockerArchive { file, reference } => {
                Self::DockerArchive { file: absolute(file), reference: reference.clone() }.to_string()
            }
        }
    }
}

impl Reference {
    /// The registry as written or implied, such as `docker.io` or `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository, such as `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if neither a tag nor a digest was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that the manifest must have, which outranks the tag.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// As the user wrote it.
    pub(crate) fn written(&self) -> &str {
        &self.written
    }

    /// The host and port that serve the registry's API.
    pub(crate) fn api_host(&self) -> &str {
        if self.domain == DEFAULT_DOMAIN { "registry-1.docker.io" } else { &self.domain }
    }

    /// Whether the registry is on this machine's loopback: plain HTTP is used there and nowhere else, as docker does.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = match self.domain.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.domain,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(name: &str) -> Result<Self, ReferenceError> {
        if name.trim().is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match name.split_once('@') {
            Some((rest, digest)) => {
                let digest =
                    digest.parse().map_err(|source| ReferenceError::Digest { name: name.to_owned(), source })?;
                (rest, Some(digest))
            }
            None => (name, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        let (domain, repository) = split_domain(path);
        check_domain(name, &domain)?;
        check_repository(name, &repository)?;
        if let Some(tag) = tag {
            check_tag(name, tag)?;
        }
        let length = domain.len() + 1 + repository.len();
        if length > NAME_MAX_BYTES {
            return Err(ReferenceError::TooLong { length });
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TAG.to_owned()),
        };
        Ok(Self { domain, repository, tag, digest, written: name.to_owned() })
    }
}

impl fmt::Display for Reference {
    /// The short form that docker shows: without `docker.io/library/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.domain != DEFAULT_DOMAIN {
            write!(f, "{}/{}", self.domain, self.repository)?;
        } else {
            f.write_str(self.repository.strip_prefix("library/").unwrap_or(&self.repository))?;
        }
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Docker's rule: the first component is a registry if it has a dot, a colon or an upper-case letter, or is `localhost`.
fn split_domain(path: &str) -> (String, String) {
    let looks_like_host = |first: &str| {
        first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    let (domain, repository) = match path.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, path),
    };
    let domain = if matches!(domain, "index.docker.io" | "registry-1.docker.io") { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !repository.contains('/') {
        return (domain.to_owned(), format!("library/{repository}"));
    }
    (domain.to_owned(), repository.to_owned())
}

fn check_domain(name: &str, domain: &str) -> Result<(), ReferenceError> {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
            (None, port.strip_prefix(':').or((!port.is_empty()).then_some("?")))
        }
        _ => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let host_is_good = host.is_none_or(|host| host.split('.').all(label));
    let port_is_good = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if host_is_good && port_is_good {
        return Ok(());
    }
    Err(ReferenceError::Domain { name: name.to_owned(), domain: domain.to_owned() })
}

fn check_repository(name: &str, repository: &str) -> Result<(), ReferenceError> {
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ReferenceError::UpperCase {
            name: name.to_owned(),
            repository: repository.strip_prefix("library/").unwrap_or(repository).to_owned(),
            fixed: name.to_ascii_lowercase(),
        });
    }
    match repository.split('/').find(|component| !is_component(component)) {
        Some(component) => Err(ReferenceError::Repository { name: name.to_owned(), component: component.to_owned() }),
        None => Ok(()),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separator = Vec::new();
    let mut after_word = false;
    for byte in component.bytes() {
        if alphanumeric(byte) {
            let joined = matches!(separator.as_slice(), [] | b"." | b"_" | b"__")
                || separator.iter().all(|separator| *separator == b'-');
            if !joined {
                return false;
            }
            separator.clear();
            after_word = true;
        } else if matches!(byte, b'.' | b'_' | b'-') && after_word {
            separator.push(byte);
        } else {
            return false;
        }
    }
    after_word && separator.is_empty()
}

fn check_tag(name: &str, tag: &str) -> Result<(), ReferenceError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let good = tag.len() <= TAG_MAX_BYTES
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    if good { Ok(()) } else { Err(ReferenceError::Tag { name: name.to_owned(), tag: tag.to_owned() }) }
}

#[cfg(test)]
mod tests;
