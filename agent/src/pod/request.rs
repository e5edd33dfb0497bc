//! What the host's requests ask for, checked and turned into jobs.

use bulkhead_protocols::agent::{CreateContainerRequest, ExecRequest, File, Stdio, rootfs};

use crate::cgroup::Setting;
use crate::cgroup::devices::DeviceRule;
use crate::plan::{
    ContainerPlan, FilePlan, Job, JoinPlan, MountSource, Namespaces, ProcessPlan, RootfsPlan, RootfsSource, UpperLayer,
    UserPlan,
};
use crate::server::Refusal;
use crate::spec;
use crate::stdio::header::StreamKind;

/// Most layers below an overlay, the kernel's limit.
const LAYERS_MAX: usize = 500;
/// Permission bits a file may have.
const MODE_MASK: u32 = 0o7777;

/// A checked CreateContainer.
#[derive(Debug)]
pub(super) struct CreateOrder {
    /// Complete, but for the directory on the scratch disk.
    pub(super) plan: ContainerPlan,
    pub(super) streams: Vec<StreamKind>,
    pub(super) cgroup_path: Option<String>,
    pub(super) cgroup_settings: Vec<Setting>,
    pub(super) device_rules: Vec<DeviceRule>,
    pub(super) scratch_serial: Option<String>,
}

impl CreateOrder {
    /// The paths of the guest that the container is made from.
    pub(super) fn guest_paths(&self) -> impl Iterator<Item = &str> {
        let roots = match &self.plan.rootfs.source {
            RootfsSource::Directory(path) => std::slice::from_ref(path),
            RootfsSource::Overlay { lower, .. } => lower.as_slice(),
        };
        let binds = self.plan.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Bind { path, .. } => Some(path),
            _ => None,
        });
        roots.iter().chain(binds).map(String::as_str)
    }

    /// The plan, with the directory for the overlay's writes.
    pub(super) fn into_plan(self, scratch: Option<String>) -> ContainerPlan {
        let mut plan = self.plan;
        if let (RootfsSource::Overlay { upper, .. }, Some(directory)) = (&mut plan.rootfs.source, scratch) {
            *upper = UpperLayer::Scratch(directory);
        }
        plan
    }
}

/// Checks a CreateContainer.
pub(super) fn create(request: CreateContainerRequest) -> Result<CreateOrder, Refusal> {
    let spec = spec::container(&request.spec_json).map_err(Refusal::invalid)?;
    let mut process = spec.process;
    finish_process(&mut process, request.user)?;
    process.create_cwd = request.create_cwd;
    let streams = streams(request.stdio.as_ref(), &process)?;
    let rootfs = request.rootfs.into_option().ok_or_else(|| Refusal::invalid("rootfs is missing"))?;
    let read_only = rootfs.read_only || spec.root_read_only;
    let (source, scratch_serial) = rootfs_source(rootfs.kind)?;
    let plan = ContainerPlan {
        namespaces: spec.namespaces,
        hostname: spec.hostname,
        domainname: spec.domainname,
        rootfs: RootfsPlan { source, read_only, propagation: spec.propagation },
        mounts: spec.mounts,
        files: request.files.into_iter().map(file).collect::<Result<_, _>>()?,
        devices: spec.devices,
        masked_paths: spec.masked_paths,
        readonly_paths: spec.readonly_paths,
        sysctls: spec.sysctls,
        process,
    };
    Ok(CreateOrder {
        plan,
        streams,
        cgroup_path: spec.cgroup_path,
        cgroup_settings: spec.cgroup_settings,
        device_rules: spec.device_rules,
        scratch_serial,
    })
}

/// Checks an Exec.
pub(super) fn exec(request: ExecRequest, namespaces: Namespaces) -> Result<(Job, Vec<StreamKind>), Refusal> {
    let mut process = spec::process(&request.process_json).map_err(Refusal::invalid)?;
    finish_process(&mut process, request.user)?;
    let streams = streams(request.stdio.as_ref(), &process)?;
    Ok((Job::Join(Box::new(JoinPlan { namespaces, process })), streams))
}

fn finish_process(process: &mut ProcessPlan, user: String) -> Result<(), Refusal> {
    if user.contains(['\0', '\n']) {
        return Err(Refusal::invalid(format!("user {user:?} holds a character that no name has")));
    }
    if !user.is_empty() {
        let additional_gids = match &mut process.user {
            UserPlan::Ids { additional_gids, .. } | UserPlan::Lookup { additional_gids, .. } => {
                std::mem::take(additional_gids)
            }
        };
        process.user = UserPlan::Lookup { name: user, additional_gids };
    }
    Ok(())
}

fn streams(stdio: Option<&Stdio>, process: &ProcessPlan) -> Result<Vec<StreamKind>, Refusal> {
    let Some(stdio) = stdio else { return Ok(Vec::new()) };
    if process.terminal.is_some() && stdio.stderr {
        return Err(Refusal::invalid("stdio.stderr is set, but the process has a terminal, whose output is stdout"));
    }
    let wanted =
        [(stdio.stdin, StreamKind::Stdin), (stdio.stdout, StreamKind::Stdout), (stdio.stderr, StreamKind::Stderr)];
    Ok(wanted.into_iter().filter(|(exists, _)| *exists).map(|(_, kind)| kind).collect())
}

fn rootfs_source(kind: Option<rootfs::Kind>) -> Result<(RootfsSource, Option<String>), Refusal> {
    match kind {
        None => Err(Refusal::invalid("rootfs.kind is missing")),
        Some(rootfs::Kind::Directory(path)) => {
            check_path("rootfs.directory", &path)?;
            Ok((RootfsSource::Directory(path), None))
        }
        Some(rootfs::Kind::Overlay(overlay)) => {
            if !(1..=LAYERS_MAX).contains(&overlay.lower.len()) {
                let count = overlay.lower.len();
                return Err(Refusal::invalid(format!(
                    "rootfs.overlay.lower has {count} layers, not 1 to {LAYERS_MAX}"
                )));
            }
            overlay.lower.iter().try_for_each(|path| check_path("rootfs.overlay.lower", path))?;
            let serial = Some(overlay.scratch_serial).filter(|serial| !serial.is_empty());
            Ok((RootfsSource::Overlay { lower: overlay.lower, upper: UpperLayer::Memory }, serial))
        }
        Some(_) => Err(Refusal::invalid("rootfs.kind is of a kind this agent does not know")),
    }
}

fn file(file: File) -> Result<FilePlan, Refusal> {
    check_path("files.path", &file.path)?;
    if file.mode & !MODE_MASK != 0 {
        return Err(Refusal::invalid(format!(
            "files: mode {:o} of {:?} is more than permissions",
            file.mode, file.path
        )));
    }
    Ok(FilePlan { path: file.path, contents: file.contents, mode: file.mode })
}

fn check_path(field: &str, path: &str) -> Result<(), Refusal> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Refusal::invalid(format!("{field} {path:?} is not an absolute path")));
    }
    Ok(())
}
