//! From OCI runtime-spec JSON to checked plans. Nothing is dropped silently: a property that is not implemented is refused
//! by name ([`refused`]), and each value is checked here, before anything is made.

mod capability;
mod document;
mod linux;
mod mounts;
mod process;
mod refused;

use serde_json::Value;

pub(crate) use linux::NamespaceSet;

use document::{Document, Process};

use crate::cgroup::Setting;
use crate::cgroup::devices::{self, DeviceRule};
use crate::plan::{DevicePlan, MountPlan, ProcessPlan, Propagation};

/// A specification is refused: the property and why, as one sentence.
pub(crate) type SpecError = String;

/// A checked `config.json`.
#[derive(Debug)]
pub(crate) struct ContainerSpec {
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) root_read_only: bool,
    pub(crate) process: ProcessPlan,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) namespaces: NamespaceSet,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) propagation: Option<Propagation>,
    /// Path of the cgroup below the root of the hierarchy, if the specification names one.
    pub(crate) cgroup_path: Option<String>,
    pub(crate) cgroup_settings: Vec<Setting>,
    pub(crate) device_rules: Vec<DeviceRule>,
}

/// Checks a whole `config.json`.
pub(crate) fn container(json: &[u8]) -> Result<ContainerSpec, SpecError> {
    let value: Value = serde_json::from_slice(json).map_err(|error| format!("spec_json: {error}"))?;
    refused::check(&value, refused::CONTAINER)?;
    let spec: Document = serde_json::from_value(value).map_err(|error| format!("spec_json: {error}"))?;
    if !spec.oci_version.starts_with("1.") {
        return Err(format!("ociVersion is {:?}; versions 1.x are understood", spec.oci_version));
    }
    let linux = spec.linux.ok_or("linux is missing")?;
    let namespaces = linux::namespaces(&linux)?;
    linux::check_names(&namespaces, spec.hostname.as_deref(), spec.domainname.as_deref())?;
    let resources = linux.resources().as_ref();
    let cgroup_settings = resources.map(crate::cgroup::settings).transpose()?.unwrap_or_default();
    let device_rules = devices::rules(resources.and_then(|all| all.devices().as_deref()).unwrap_or_default())?;
    Ok(ContainerSpec {
        hostname: spec.hostname.filter(|name| !name.is_empty()),
        domainname: spec.domainname.filter(|name| !name.is_empty()),
        root_read_only: spec.root.and_then(|root| root.readonly()).unwrap_or(false),
        process: process::plan(spec.process.ok_or("process is missing")?)?,
        mounts: mounts::plan(&spec.mounts.unwrap_or_default())?,
        namespaces,
        devices: linux::devices(&linux)?,
        masked_paths: absolute_paths("linux.maskedPaths", linux.masked_paths().as_deref())?,
        readonly_paths: absolute_paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
        sysctls: linux::sysctls(&linux)?,
        propagation: linux::propagation(&linux)?,
        cgroup_path: linux::cgroup_path(&linux)?,
        cgroup_settings,
        device_rules,
    })
}

/// Checks a `process` object, that of an Exec.
pub(crate) fn process(json: &[u8]) -> Result<ProcessPlan, SpecError> {
    let value: Value = serde_json::from_slice(json).map_err(|error| format!("process_json: {error}"))?;
    refused::check(&value, refused::PROCESS)?;
    let process: Process = serde_json::from_value(value).map_err(|error| format!("process_json: {error}"))?;
    process::plan(process)
}

/// Paths of a list, each absolute and free of NUL bytes.
fn absolute_paths(property: &str, paths: Option<&[String]>) -> Result<Vec<String>, SpecError> {
    for path in paths.unwrap_or_default() {
        check_absolute(property, path)?;
    }
    Ok(paths.unwrap_or_default().to_vec())
}

fn check_absolute(property: &str, path: &str) -> Result<(), SpecError> {
    if !path.starts_with('/') {
        return Err(format!("{property}: {path:?} is not an absolute path"));
    }
    check_no_nul(property, path)
}

fn check_no_nul(property: &str, text: &str) -> Result<(), SpecError> {
    if text.contains('\0') { Err(format!("{property}: {text:?} holds a NUL byte")) } else { Ok(()) }
}

/// The text of a path; JSON strings are UTF-8, so every path of a specification has one.
fn path_text(property: &str, path: &std::path::Path) -> Result<String, SpecError> {
    path.to_str().map(str::to_owned).ok_or_else(|| format!("{property}: {path:?} is not UTF-8"))
}

#[cfg(test)]
mod tests;
