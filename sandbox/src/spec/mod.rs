//! The OCI runtime specification of a container that a user asked for on the command line, with docker's defaults.

mod defaults;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

pub use self::defaults::PATH as DEFAULT_PATH;

use crate::resources::{CPU_PERIOD_US, CpuLimit, MemoryLimit};
use crate::terminal::TerminalSize;

/// What varies between containers; everything else is [`defaults`].
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// Program and arguments, at least one.
    pub args: Vec<String>,
    /// `KEY=VALUE` entries.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// A terminal, of this size if one is known.
    pub terminal: Option<Option<TerminalSize>>,
    /// The rootfs refuses writes.
    pub read_only: bool,
    /// Host name.
    pub hostname: String,
    /// CPU time.
    pub cpus: CpuLimit,
    /// Memory.
    pub memory: MemoryLimit,
    /// Mounts after the default ones, in order.
    pub mounts: Vec<Mount>,
}

/// A mount that the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// A file or directory of the guest.
    Bind {
        /// Path in the guest.
        source: String,
        /// Path in the container.
        destination: String,
        /// Refuse writes.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Path in the container.
        destination: String,
        /// Mount options, such as `size=64m`.
        options: Vec<String>,
    },
}

impl Mount {
    fn to_json(&self) -> Value {
        match self {
            Self::Bind { source, destination, read_only } => json!({
                "destination": destination, "type": "bind", "source": source,
                "options": ["rbind", "rprivate", if *read_only { "ro" } else { "rw" }],
            }),
            Self::Tmpfs { destination, options } => json!({
                "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options,
            }),
        }
    }
}

impl ContainerSpec {
    /// The `config.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut mounts = defaults::mounts();
        mounts.extend(self.mounts.iter().map(Mount::to_json));
        let spec = json!({
            "ociVersion": "1.2.0",
            "process": self.process(),
            "root": { "path": "rootfs", "readonly": self.read_only },
            "hostname": self.hostname,
            "mounts": mounts,
            "linux": {
                "resources": self.resources(),
                "namespaces": defaults::namespaces(),
                "maskedPaths": defaults::MASKED_PATHS,
                "readonlyPaths": defaults::READONLY_PATHS,
            },
        });
        spec.to_string().into_bytes()
    }

    fn process(&self) -> Value {
        let mut process = json!({
            "terminal": self.terminal.is_some(),
            // The agent looks the user up in the container and replaces these.
            "user": { "uid": 0, "gid": 0 },
            "args": self.args,
            "env": self.env,
            "cwd": self.cwd,
            "capabilities": {
                "bounding": defaults::CAPABILITIES,
                "effective": defaults::CAPABILITIES,
                "permitted": defaults::CAPABILITIES,
            },
            "rlimits": defaults::rlimits(),
            "noNewPrivileges": false,
        });
        if let (Some(Some(size)), Some(process)) = (self.terminal, process.as_object_mut()) {
            process.insert("consoleSize".into(), json!({ "height": size.rows, "width": size.columns }));
        }
        process
    }

    fn resources(&self) -> Value {
        // Memory and swap together: no swap, as guests have none.
        let limit = self.memory.workload_bytes();
        let mut resources = json!({ "memory": { "limit": limit, "swap": limit } });
        if let (Some(quota), Some(resources)) = (self.cpus.quota_us(), resources.as_object_mut()) {
            resources.insert("cpu".into(), json!({ "quota": quota, "period": CPU_PERIOD_US }));
        }
        resources
    }
}
