//! The image configuration (OCI image-spec 1.1, config.md): what the image's author wants a container to start with.
//!
//! The document comes from strangers: it is parsed once, bounded, into [`ImageConfig`], whose values are safe to hand on.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::digest::Digest;
use super::excerpt::excerpt;

/// Largest configuration document in bytes.
pub(crate) const CONFIG_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Most layers of an image: Docker allows 127, and the guest's overlay takes one lower directory for each.
pub(crate) const LAYERS_MAX: usize = 128;
/// Most bytes of all environment entries, or of all arguments: execve(2) takes 2 MiB of both on an ordinary system.
const STRINGS_MAX_BYTES: usize = 1024 * 1024;
/// Longest user or working directory: PATH_MAX.
const FIELD_MAX_BYTES: usize = 4096;

/// What the image's author wants a container to start with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `KEY=VALUE` entries, in order; keys are not empty, nothing holds a NUL byte.
    pub env: Vec<String>,
    /// Arguments put before the command's; empty if the image sets none.
    pub entrypoint: Vec<String>,
    /// The default command; empty if the image sets none.
    pub cmd: Vec<String>,
    /// `name|uid[:group|gid]`; empty for root.
    pub user: String,
    /// Absolute path in the container; `/` if the image sets none.
    pub working_dir: String,
    /// Signal that asks the container to stop, 1 to 64; `None` if the image sets none.
    pub stop_signal: Option<u32>,
    /// Ports the image says it listens on, such as `80/tcp`: for information.
    pub exposed_ports: Vec<String>,
    /// Paths for which the author expects a volume: for information, as everything a sandbox writes is its own anyway.
    pub volumes: Vec<String>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON that the specification describes.
    #[error("the image's configuration is not valid JSON of an image configuration")]
    Json(#[source] serde_json::Error),
    /// For another machine.
    #[error("the image is for {os}/{architecture}; sandboxes run linux/amd64. Choose an image built for linux/amd64")]
    Platform {
        /// As declared.
        os: String,
        /// As declared.
        architecture: String,
    },
    /// An environment entry without a name.
    #[error("the image's environment entry `{entry}` is not of the form NAME=VALUE")]
    Env {
        /// The start of the entry.
        entry: String,
    },
    /// A NUL byte where the kernel takes none.
    #[error("the image's {field} holds a NUL byte")]
    Nul {
        /// Name of the field.
        field: &'static str,
    },
    /// More text than a process can be started with.
    #[error("the image's {field} is {bytes} bytes long; at most {limit} are supported")]
    TooLong {
        /// Name of the field.
        field: &'static str,
        /// What it has.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// Neither a name nor a number of a Linux signal.
    #[error("the image's StopSignal `{value}` is not a signal of Linux, such as SIGTERM or 15")]
    StopSignal {
        /// As declared.
        value: String,
    },
    /// Layers that are not a list of diff ids.
    #[error("the image's rootfs has the type `{kind}`; only `layers` is known")]
    RootfsType {
        /// As declared.
        kind: String,
    },
    /// Nothing to run, or more than can be stacked.
    #[error("the image has {count} layers; 1 to {LAYERS_MAX} are supported")]
    Layers {
        /// As declared.
        count: usize,
    },
}

/// A configuration and the digests of the layers it belongs to.
#[derive(Debug)]
pub(crate) struct ParsedConfig {
    pub(crate) config: ImageConfig,
    /// Digest of each layer's uncompressed tar stream, bottom layer first.
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    config: Option<Settings>,
    rootfs: Rootfs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Rootfs {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

/// Parses and validates a configuration of at most [`CONFIG_MAX_BYTES`].
pub(crate) fn parse(bytes: &[u8]) -> Result<ParsedConfig, ConfigError> {
    let document: Document = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
    if document.os != "linux" || document.architecture != "amd64" {
        return Err(ConfigError::Platform { os: excerpt(&document.os), architecture: excerpt(&document.architecture) });
    }
    if !matches!(document.rootfs.kind.as_str(), "layers" | "") {
        return Err(ConfigError::RootfsType { kind: excerpt(&document.rootfs.kind) });
    }
    let count = document.rootfs.diff_ids.len();
    if count == 0 || count > LAYERS_MAX {
        return Err(ConfigError::Layers { count });
    }
    let config = validate(document.config.unwrap_or_default())?;
    Ok(ParsedConfig { config, diff_ids: document.rootfs.diff_ids })
}

fn validate(settings: Settings) -> Result<ImageConfig, ConfigError> {
    let env = strings("Env", settings.env)?;
    if let Some(entry) = env.iter().find(|entry| entry.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
        return Err(ConfigError::Env { entry: excerpt(entry) });
    }
    let working_dir = field("WorkingDir", settings.working_dir)?;
    Ok(ImageConfig {
        env,
        entrypoint: strings("Entrypoint", settings.entrypoint)?,
        cmd: strings("Cmd", settings.cmd)?,
        user: field("User", settings.user)?,
        // Docker takes a relative working directory from the root.
        working_dir: if working_dir.starts_with('/') { working_dir } else { format!("/{working_dir}") },
        stop_signal: settings.stop_signal.filter(|value| !value.is_empty()).map(|value| signal(&value)).transpose()?,
        exposed_ports: strings("ExposedPorts", settings.exposed_ports.map(|ports| ports.into_keys().collect()))?,
        volumes: strings("Volumes", settings.volumes.map(|paths| paths.into_keys().collect()))?,
    })
}

fn strings(field: &'static str, values: Option<Vec<String>>) -> Result<Vec<String>, ConfigError> {
    let values = values.unwrap_or_default();
    let bytes = values.iter().map(|value| value.len() + 1).sum();
    if bytes > STRINGS_MAX_BYTES {
        return Err(ConfigError::TooLong { field, bytes, limit: STRINGS_MAX_BYTES });
    }
    if values.iter().any(|value| value.contains('\0')) {
        return Err(ConfigError::Nul { field });
    }
    Ok(values)
}

fn field(field: &'static str, value: Option<String>) -> Result<String, ConfigError> {
    let value = value.unwrap_or_default();
    if value.len() > FIELD_MAX_BYTES {
        return Err(ConfigError::TooLong { field, bytes: value.len(), limit: FIELD_MAX_BYTES });
    }
    if value.contains('\0') {
        return Err(ConfigError::Nul { field });
    }
    Ok(value)
}

/// Linux signals of x86-64 by name, for `SIGTERM`, `TERM`, `15`, `RTMIN+3` and `RTMAX-1`.
const SIGNALS: [(&str, u32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
];

fn signal(value: &str) -> Result<u32, ConfigError> {
    let upper = value.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let real_time = || {
        let from_min = name.strip_prefix("RTMIN+").and_then(|offset| 34_u32.checked_add(offset.parse().ok()?));
        let from_max = name.strip_prefix("RTMAX-").and_then(|offset| 64_u32.checked_sub(offset.parse().ok()?));
        from_min.or(from_max).or((name == "RTMAX").then_some(64)).filter(|number| *number >= 34)
    };
    let number = value.parse().ok().or(named).or_else(real_time).filter(|number| (1..=64).contains(number));
    number.ok_or_else(|| ConfigError::StopSignal { value: excerpt(value) })
}

#[cfg(test)]
mod tests;
