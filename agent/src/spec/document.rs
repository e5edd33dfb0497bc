//! The outer shape of `config.json`. The parts come from `oci-spec`; the whole does not, since that crate's `Process` would
//! bring a regular-expression engine, a third of the agent's size, into every guest, to parse a property that is refused.

use oci_spec::runtime::{Box as ConsoleSize, Linux, LinuxCapabilities, Mount, PosixRlimit, Root, User};
use serde::Deserialize;

/// `config.json`, without what [`super::refused`] refuses.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) oci_version: String,
    pub(super) root: Option<Root>,
    pub(super) mounts: Option<Vec<Mount>>,
    pub(super) process: Option<Process>,
    pub(super) hostname: Option<String>,
    pub(super) domainname: Option<String>,
    pub(super) linux: Option<Linux>,
}

/// The `process` object, without what is refused.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Process {
    pub(super) terminal: Option<bool>,
    pub(super) console_size: Option<ConsoleSize>,
    #[serde(default)]
    pub(super) user: User,
    pub(super) args: Option<Vec<String>>,
    pub(super) env: Option<Vec<String>>,
    pub(super) cwd: String,
    pub(super) capabilities: Option<LinuxCapabilities>,
    pub(super) rlimits: Option<Vec<PosixRlimit>>,
    pub(super) no_new_privileges: Option<bool>,
    pub(super) oom_score_adj: Option<i32>,
}
