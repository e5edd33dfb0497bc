//! One container: its cgroup, its processes, its end. Owns the table of its processes.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_protocols::wire::INIT_PROCESS;
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use tokio::sync::watch;

use super::launch::{Attached, Launch, Launched, launch};
use super::process::{Outcome, Process};
use crate::cgroup::Cgroup;
use crate::plan::{Job, Namespaces};
use crate::reaper::Reaper;
use crate::server::Refusal;
use crate::stdio::parking::ProcessStreams;

/// How many ended processes of a container stay known, the newest.
const ENDED_MAX: usize = 256;

/// A container that exists.
#[derive(Debug)]
pub(crate) struct Container {
    id: String,
    namespaces: Namespaces,
    cgroup: Arc<Cgroup>,
    /// Its directory on the scratch disk.
    scratch: Option<String>,
    init: Arc<Process>,
    processes: Mutex<Processes>,
}

/// The processes beside the first one.
#[derive(Debug, Default)]
struct Processes {
    /// `None` while it is being made.
    known: HashMap<String, Option<Arc<Process>>>,
    /// Ids of ended ones, the oldest first.
    ended: VecDeque<String>,
}

/// What a container is made of.
pub(super) struct Parts {
    pub(super) id: String,
    pub(super) namespaces: Namespaces,
    pub(super) cgroup: Arc<Cgroup>,
    pub(super) scratch: Option<String>,
}

impl Container {
    /// Starts the helper that becomes the container's first process, and waits until it is ready.
    pub(super) async fn create(
        parts: Parts,
        program: impl AsFd,
        job: &Job,
        streams: ProcessStreams,
        reaper: &Reaper,
    ) -> Result<Arc<Self>, Refusal> {
        let Parts { id, namespaces, cgroup, scratch } = parts;
        let directory = cgroup.open()?;
        let what = Launch {
            program: program.as_fd(),
            job,
            namespaces: birth_flags(namespaces),
            cgroup: directory.as_fd(),
            container: None,
            joins_pid_namespace: false,
            terminal: has_terminal(job),
        };
        let (launched, attached) = launch(&what, streams, reaper).await.map_err(|refusal| {
            if cgroup.oom_kills() == 0 {
                return refusal;
            }
            Refusal::invalid(
                "linux.resources.memory.limit is too small: the container ran out of memory while it was made",
            )
        })?;
        let init = supervise(launched, attached, Arc::clone(&cgroup), !namespaces.pid);
        Ok(Arc::new(Self { id, namespaces, cgroup, scratch, init, processes: Mutex::default() }))
    }

    /// Creates a further process; the caller starts it.
    pub(super) async fn add_process(
        self: &Arc<Self>,
        process_id: &str,
        program: impl AsFd,
        job: &Job,
        streams: ProcessStreams,
        reaper: &Reaper,
    ) -> Result<Arc<Process>, Refusal> {
        self.reserve(process_id)?;
        let result = self.launch_further(program, job, streams, reaper).await;
        let mut processes = self.lock();
        match result {
            Ok(process) => {
                processes.known.insert(process_id.to_owned(), Some(Arc::clone(&process)));
                drop(processes);
                self.forget_when_old(process_id.to_owned(), Arc::clone(&process));
                Ok(process)
            }
            Err(refusal) => {
                processes.known.remove(process_id);
                Err(refusal)
            }
        }
    }

    async fn launch_further(
        &self,
        program: impl AsFd,
        job: &Job,
        streams: ProcessStreams,
        reaper: &Reaper,
    ) -> Result<Arc<Process>, Refusal> {
        let directory = self.group_of_members()?;
        let init = self.init.pidfd()?;
        let what = Launch {
            program: program.as_fd(),
            job,
            namespaces: 0,
            cgroup: directory.as_fd(),
            container: Some(init.as_fd()),
            joins_pid_namespace: self.namespaces.pid,
            terminal: has_terminal(job),
        };
        let (launched, attached) = launch(&what, streams, reaper).await?;
        Ok(supervise(launched, attached, Arc::clone(&self.cgroup), false))
    }

    /// The group that a further process goes to: the container's, or, if the container has put its processes into groups
    /// below it (which then may not hold processes itself), that of its first process.
    fn group_of_members(&self) -> Result<std::os::fd::OwnedFd, Refusal> {
        let delegated = self.cgroup.delegates();
        if delegated { Cgroup::of_process(self.init.pid())?.open() } else { self.cgroup.open() }
    }

    /// Refuses a container that was not started or has ended.
    pub(super) fn check_running(&self) -> Result<(), Refusal> {
        if !self.init.was_started() {
            return Err(Refusal::precondition(format!("container {:?} was not started", self.id)));
        }
        if self.init.has_ended() {
            return Err(Refusal::precondition(format!("container {:?} has ended", self.id)));
        }
        Ok(())
    }

    /// The container's id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Its namespaces.
    pub(super) fn namespaces(&self) -> Namespaces {
        self.namespaces
    }

    /// Its cgroup.
    pub(super) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Its directory on the scratch disk.
    pub(super) fn scratch(&self) -> Option<&str> {
        self.scratch.as_deref()
    }

    /// Its first process.
    pub(super) fn init(&self) -> &Arc<Process> {
        &self.init
    }

    /// The process with that id.
    pub(super) fn process(&self, process_id: &str) -> Result<Arc<Process>, Refusal> {
        if process_id == INIT_PROCESS {
            return Ok(Arc::clone(&self.init));
        }
        let found = self.lock().known.get(process_id).cloned().flatten();
        found.ok_or_else(|| Refusal::not_found(format!("container {:?} has no process {process_id:?}", self.id)))
    }

    /// Sends a signal to every process of the container.
    pub(super) fn signal_all(&self, number: u32) -> Result<(), Refusal> {
        let failed =
            |error: std::io::Error| Refusal::internal(format!("signal the processes of {:?}: {error}", self.id));
        if number == libc::SIGKILL.unsigned_abs() {
            return self.cgroup.kill().map_err(failed);
        }
        for pid in self.cgroup.processes() {
            match crate::sys::signal::send_to_pid(pid, number) {
                // It ended meanwhile.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(())
    }

    fn reserve(&self, process_id: &str) -> Result<(), Refusal> {
        let mut processes = self.lock();
        let taken = match processes.known.get(process_id) {
            None => false,
            Some(None) => true,
            Some(Some(process)) => !process.has_ended(),
        };
        if taken || process_id == INIT_PROCESS {
            return Err(Refusal::exists(format!("container {:?} has a process {process_id:?} already", self.id)));
        }
        processes.ended.retain(|ended| ended != process_id);
        processes.known.insert(process_id.to_owned(), None);
        Ok(())
    }

    /// Keeps the table bounded: of the processes that have ended, the oldest are forgotten.
    fn forget_when_old(self: &Arc<Self>, process_id: String, process: Arc<Process>) {
        let container = Arc::clone(self);
        tokio::spawn(async move {
            if process.wait().await.is_err() {
                return;
            }
            let mut processes = container.lock();
            processes.ended.push_back(process_id);
            while processes.ended.len() > ENDED_MAX {
                if let Some(oldest) = processes.ended.pop_front() {
                    processes.known.remove(&oldest);
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches a process to its end. Where it was the first of a container without a pid namespace, the others follow it here;
/// with one, the kernel sees to that.
fn supervise(launched: Launched, attached: Attached, cgroup: Arc<Cgroup>, ends_group: bool) -> Arc<Process> {
    let Attached { ended, stdin_pump } = attached;
    let (sender, receiver) = watch::channel(None);
    let oom_kills_before = cgroup.oom_kills();
    let process = Arc::new(Process::new(launched, receiver));
    let watched = Arc::clone(&process);
    tokio::spawn(async move {
        let Ok(ending) = ended.await else { return };
        watched.release();
        if let Some(pump) = stdin_pump {
            pump.abort();
        }
        if ends_group {
            // A group that is gone has no processes either.
            let _ = cgroup.kill();
        }
        let oom_killed = cgroup.oom_kills() > oom_kills_before;
        // With no receiver left, nobody will ask.
        let _ = sender.send(Some(Outcome { ending, oom_killed }));
    });
    process
}

fn has_terminal(job: &Job) -> bool {
    match job {
        Job::Create(plan) => plan.process.terminal.is_some(),
        Job::Join(plan) => plan.process.terminal.is_some(),
    }
}

/// The namespaces a first process is born in. The cgroup namespace is left to the helper: it would show the agent's group
/// as the root if it were made at birth.
fn birth_flags(namespaces: Namespaces) -> u32 {
    let wanted = [
        (true, UnshareFlags::NEWNS),
        (namespaces.pid, UnshareFlags::NEWPID),
        (namespaces.ipc, UnshareFlags::NEWIPC),
        (namespaces.uts, UnshareFlags::NEWUTS),
        (namespaces.network, UnshareFlags::NEWNET),
    ];
    wanted.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag).collect::<UnshareFlags>().bits()
}
