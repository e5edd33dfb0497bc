//! What the agent hands to `container-init`, the helper that becomes a container's process: a specification that was
//! checked, with every name turned into a number. It crosses between two runs of the same program as JSON in a memfd.

use serde::{Deserialize, Serialize};

use crate::sys::mount_attr::MountChange;

/// The helper's job.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Become the first process of a new container.
    Create(Box<ContainerPlan>),
    /// Become a further process of a running one.
    Join(Box<JoinPlan>),
}

/// A container that is to be made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContainerPlan {
    pub(crate) namespaces: Namespaces,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) rootfs: RootfsPlan,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) files: Vec<FilePlan>,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    /// Key with slashes (`net/core/somaxconn`) and value.
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) process: ProcessPlan,
}

/// A further process of a running container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JoinPlan {
    /// The namespaces that the container has of its own, all of which are joined.
    pub(crate) namespaces: Namespaces,
    pub(crate) process: ProcessPlan,
}

/// Which namespaces a container has of its own beside its mount namespace, which every container has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Namespaces {
    pub(crate) pid: bool,
    pub(crate) ipc: bool,
    pub(crate) uts: bool,
    pub(crate) network: bool,
    pub(crate) cgroup: bool,
}

/// Where the root file system comes from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RootfsPlan {
    pub(crate) source: RootfsSource,
    pub(crate) read_only: bool,
    /// `linux.rootfsPropagation`, applied to the container's root at the end.
    pub(crate) propagation: Option<Propagation>,
}

/// The kinds of root file system.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RootfsSource {
    /// A directory of the guest.
    Directory(String),
    /// Layers, top first, below a writable one.
    Overlay { lower: Vec<String>, upper: UpperLayer },
}

/// Where an overlay's writes go.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum UpperLayer {
    /// A tmpfs that lives as long as the container's mount namespace.
    Memory,
    /// A directory of the scratch disk, which holds `upper` and `work`.
    Scratch(String),
}

/// A propagation type and whether it goes for everything below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub(crate) flag: u64,
    pub(crate) recursive: bool,
}

/// One entry of `mounts`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountPlan {
    /// Absolute path in the container.
    pub(crate) destination: String,
    pub(crate) source: MountSource,
    /// Attributes of this mount alone.
    pub(crate) change: MountChange,
    /// Attributes of this mount and all below it (`rro` and its like).
    pub(crate) recursive_change: MountChange,
    pub(crate) propagation: Option<Propagation>,
}

/// What is mounted.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MountSource {
    /// A file or directory of the guest.
    Bind { path: String, recursive: bool },
    /// A new instance of a file system, with its options: a key alone or with a value.
    New { fs_type: String, source: String, options: Vec<(String, Option<String>)> },
    /// The container's own cgroup tree.
    Cgroup,
}

/// A file that the agent writes into the container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FilePlan {
    /// Absolute path in the container.
    pub(crate) path: String,
    pub(crate) contents: Vec<u8>,
    pub(crate) mode: u32,
}

/// A device node, a fifo included.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevicePlan {
    pub(crate) path: String,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub(crate) kind: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A process, from its arguments to its privileges.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProcessPlan {
    /// At least one.
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    /// Absolute.
    pub(crate) cwd: String,
    pub(crate) create_cwd: bool,
    pub(crate) user: UserPlan,
    pub(crate) umask: Option<u32>,
    pub(crate) capabilities: CapabilityPlan,
    pub(crate) rlimits: Vec<RlimitPlan>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) terminal: Option<TerminalPlan>,
}

/// Who the process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum UserPlan {
    /// Numbers, as in `process.user`.
    Ids { uid: u32, gid: u32, additional_gids: Vec<u32> },
    /// `name|uid[:group|gid]`, to be looked up in the container's own files, and groups beside those found there.
    Lookup { name: String, additional_gids: Vec<u32> },
}

/// The five capability sets as masks, bit n for capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CapabilityPlan {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RlimitPlan {
    /// `RLIMIT_*`.
    pub(crate) resource: u32,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// A terminal's initial size in characters; 0 by 0 if nobody said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TerminalPlan {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}
