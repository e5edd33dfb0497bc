//! cgroup version 2: a container's group, its limits, its events, its end.
//!
//! The agent itself stays in the root group. Each controller has a file of its own here, which turns the specification's
//! numbers into [`Setting`]s; this file writes them.

mod cpu;
pub(crate) mod devices;
mod hugetlb;
mod io;
mod memory;
mod pids;
mod unified;

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};

use crate::server::Refusal;

/// Where the hierarchy is mounted.
pub(crate) const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Longest wait for the processes of a killed group to be gone.
const EMPTY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How many groups a container may make below its own; more than any orchestrator in a container needs.
const DESCENDANTS_MAX: &str = "10000";

/// One value for one file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The property of the specification it comes from.
    pub(crate) property: String,
    /// File name.
    pub(crate) file: String,
    pub(crate) value: String,
}

impl Setting {
    fn new(property: &str, file: impl Into<String>, value: impl ToString) -> Self {
        let property = format!("linux.resources.{property}");
        Self { property, file: file.into(), value: value.to_string() }
    }
}

/// Translates the limits of a specification; the error names the property that cannot be.
pub(crate) fn settings(resources: &LinuxResources) -> Result<Vec<Setting>, String> {
    let mut all = Vec::new();
    if let Some(cpu) = resources.cpu() {
        cpu::settings(cpu, &mut all)?;
    }
    if let Some(memory) = resources.memory() {
        memory::settings(memory, &mut all)?;
    }
    if let Some(pids) = resources.pids() {
        pids::settings(*pids, &mut all);
    }
    if let Some(block_io) = resources.block_io() {
        io::settings(block_io, &mut all)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        hugetlb::settings(limit, &mut all)?;
    }
    for (file, value) in resources.unified().iter().flatten() {
        unified::settings(file, value, &mut all)?;
    }
    Ok(all)
}

/// A container's group; removed by [`Cgroup::remove`] alone, as that has to wait.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the group at `relative` (below the root of the hierarchy, already checked) with the given limits.
    pub(crate) fn create(relative: &str, settings: &[Setting]) -> Result<Self, Refusal> {
        let names: Vec<&str> = relative.split('/').filter(|name| !name.is_empty()).collect();
        let Some((leaf, parents)) = names.split_last() else {
            return Err(Refusal::invalid(format!("linux.cgroupsPath {relative:?} names no group")));
        };
        let mut path = PathBuf::from(CGROUP_ROOT);
        for name in parents {
            path.push(name);
            match std::fs::create_dir(&path) {
                Ok(()) => enable_controllers(&path)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Refusal::internal(format!("make cgroup {}: {error}", path.display()))),
            }
        }
        path.push(leaf);
        std::fs::create_dir(&path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Refusal::exists(format!("cgroup {relative:?} exists already")),
            _ => Refusal::internal(format!("make cgroup {}: {error}", path.display())),
        })?;
        let group = Self { path };
        let bound = Setting::new("descendants", "cgroup.max.descendants", DESCENDANTS_MAX);
        for setting in std::iter::once(&bound).chain(settings) {
            if let Err(error) = std::fs::write(group.path.join(&setting.file), &setting.value) {
                let _ = std::fs::remove_dir(&group.path);
                let Setting { property, file, value } = setting;
                return Err(Refusal::invalid(format!("{property}: write {value:?} to {file}: {error}")));
            }
        }
        Ok(group)
    }

    /// The root group, for its numbers.
    pub(crate) fn root() -> Self {
        Self { path: PathBuf::from(CGROUP_ROOT) }
    }

    /// The group that a process is in now.
    pub(crate) fn of_process(pid: u32) -> Result<Self, Refusal> {
        let path = group_directory(&format!("/proc/{pid}/cgroup"))
            .map_err(|error| Refusal::internal(format!("find the cgroup of process {pid}: {error}")))?;
        Ok(Self { path })
    }

    /// Whether the group hands controllers on, so that it may hold no process itself.
    pub(crate) fn delegates(&self) -> bool {
        std::fs::read(self.path.join("cgroup.subtree_control")).is_ok_and(|text| !text.trim_ascii().is_empty())
    }

    /// The group's directory, for `clone3`.
    pub(crate) fn open(&self) -> Result<OwnedFd, Refusal> {
        rustix::fs::open(&self.path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Refusal::internal(format!("open cgroup {}: {error}", self.path.display())))
    }

    /// Kills every process of the group and of the groups below it.
    pub(crate) fn kill(&self) -> std::io::Result<()> {
        std::fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// Process ids of the group and of the groups below it.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for group in self.tree() {
            let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        found
    }

    /// How many processes of the group the OOM killer has taken so far.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.keyed("memory.events", "oom_kill").unwrap_or(0)
    }

    /// The number behind `key` in a flat keyed file.
    pub(crate) fn keyed(&self, file: &str, key: &str) -> Option<u64> {
        let text = std::fs::read_to_string(self.path.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// The number in a file that holds one.
    pub(crate) fn number(&self, file: &str) -> Option<u64> {
        std::fs::read_to_string(self.path.join(file)).ok()?.trim().parse().ok()
    }

    /// Kills what is left and removes the group with those below it.
    pub(crate) async fn remove(&self) -> std::io::Result<()> {
        let mut pause = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        self.kill()?;
        while self.keyed("cgroup.events", "populated") != Some(0) && waited < EMPTY_WAIT_MAX {
            tokio::time::sleep(pause).await;
            waited += pause;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        for group in self.tree().iter().rev() {
            std::fs::remove_dir(group)?;
        }
        Ok(())
    }

    /// This group and those below it, parents first: at most [`DESCENDANTS_MAX`].
    fn tree(&self) -> Vec<PathBuf> {
        let mut found = vec![self.path.clone()];
        let mut at = 0;
        while let Some(group) = found.get(at).cloned() {
            // A group may go while it is looked at.
            for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    found.push(entry.path());
                }
            }
            at += 1;
        }
        found
    }
}

/// Turns every controller on for the groups below `group`.
pub(crate) fn enable_controllers(group: &Path) -> Result<(), Refusal> {
    let failed = |error: std::io::Error| {
        Refusal::internal(format!("turn the controllers of cgroup {} on: {error}", group.display()))
    };
    let available = std::fs::read_to_string(group.join("cgroup.controllers")).map_err(failed)?;
    let wanted: Vec<String> = available.split_whitespace().map(|name| format!("+{name}")).collect();
    std::fs::write(group.join("cgroup.subtree_control"), wanted.join(" ")).map_err(failed)
}

/// The directory of the calling process's group.
pub(crate) fn own_directory() -> std::io::Result<PathBuf> {
    group_directory("/proc/self/cgroup")
}

fn group_directory(file: &str) -> std::io::Result<PathBuf> {
    let text = std::fs::read_to_string(file)?;
    let relative = text.lines().find_map(|line| line.strip_prefix("0::/")).ok_or(ErrorKind::NotFound)?;
    Ok(Path::new(CGROUP_ROOT).join(relative))
}
