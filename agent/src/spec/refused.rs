//! The properties of runtime-spec 1.2 that are not implemented. The specification wants unknown properties ignored; these
//! are known, and ignoring them would run a container otherwise than asked.

use serde_json::Value;

use super::SpecError;

/// Of a `config.json`. A list is walked by `[]`.
pub(super) const CONTAINER: &[&str] = &[
    "hooks.prestart",
    "hooks.createRuntime",
    "hooks.createContainer",
    "hooks.startContainer",
    "hooks.poststart",
    "hooks.poststop",
    "solaris",
    "windows",
    "vm",
    "zos",
    "mounts[].uidMappings",
    "mounts[].gidMappings",
    "process.user.username",
    "process.commandLine",
    "process.apparmorProfile",
    "process.selinuxLabel",
    "process.ioPriority",
    "process.scheduler",
    "process.execCPUAffinity",
    "linux.uidMappings",
    "linux.gidMappings",
    "linux.timeOffsets",
    "linux.netDevices",
    "linux.intelRdt",
    "linux.memoryPolicy",
    "linux.personality",
    "linux.mountLabel",
    "linux.seccomp",
    "linux.namespaces[].path",
    "linux.resources.network.classID",
    "linux.resources.network.priorities",
    "linux.resources.rdma",
    "linux.resources.memory.kernel",
    "linux.resources.memory.kernelTCP",
    "linux.resources.memory.swappiness",
];

/// Of a `process` object.
pub(super) const PROCESS: &[&str] =
    &["user.username", "commandLine", "apparmorProfile", "selinuxLabel", "ioPriority", "scheduler", "execCPUAffinity"];

/// Refuses a specification that sets one of `properties`.
pub(super) fn check(specification: &Value, properties: &[&str]) -> Result<(), SpecError> {
    match properties.iter().find(|property| is_set(specification, property)) {
        Some(property) => Err(format!("{property} is not supported")),
        None => Ok(()),
    }
}

/// Whether the value at `path` is there and says anything: null, "", [] and {} do not.
fn is_set(value: &Value, path: &str) -> bool {
    let Some((name, rest)) = path.split_once('.').map(|(name, rest)| (name, Some(rest))).or(Some((path, None))) else {
        return false;
    };
    let (name, is_list) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
    let Some(found) = value.get(name) else { return false };
    match rest {
        None => says_anything(found),
        Some(rest) if is_list => found.as_array().is_some_and(|items| items.iter().any(|item| is_set(item, rest))),
        Some(rest) => is_set(found, rest),
    }
}

fn says_anything(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}
