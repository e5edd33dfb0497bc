//! The containers of this guest: owns the table of them, the shares and the scratch disk, and carries out what the host
//! asks for.

mod container;
mod files;
pub(crate) mod ids;
mod launch;
mod process;
mod request;
mod stats;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_protocols::agent::{CreateContainerRequest, ExecRequest, StatsResponse};
use bulkhead_protocols::wire::INIT_PROCESS;

use crate::cgroup::Cgroup;
use crate::container::Failure;
use crate::plan::Job;
use crate::reaper::Reaper;
use crate::server::Refusal;
use crate::stdio::parking::{Parking, ProcessStreams};
use crate::storage::scratch::Scratch;
use crate::storage::shares::Shares;
use container::{Container, Parts};
pub(crate) use files::{REMOVER_NAME, run_remover};
pub(crate) use process::Process;
use request::CreateOrder;
pub(crate) use stats::memory_total_kib;

/// Everything that runs in the guest beside the agent.
#[derive(Debug)]
pub(crate) struct Pod {
    /// The agent's own program, to be run as a helper.
    program: OwnedFd,
    reaper: Arc<Reaper>,
    parking: Arc<Parking>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    containers: HashMap<String, Slot>,
    shares: Shares,
    scratch: Scratch,
}

/// An id that is taken.
#[derive(Debug)]
enum Slot {
    /// By a container that is being made or deleted.
    Busy,
    Ready(Arc<Container>),
}

/// What became of a start: the process id, or why its program could not be executed.
pub(crate) type Started = Result<u32, Failure>;

impl Pod {
    /// An empty pod.
    pub(crate) fn new(program: OwnedFd, reaper: Arc<Reaper>, parking: Arc<Parking>) -> Self {
        Self { program, reaper, parking, state: Mutex::default() }
    }

    /// Makes a container; returns the pid of its first process, which waits for its start.
    pub(crate) async fn create(&self, request: CreateContainerRequest) -> Result<u32, Refusal> {
        let id = request.container_id.clone();
        let result = self.create_with(&id, request).await;
        if result.is_err() {
            self.parking.discard(&id, INIT_PROCESS);
        }
        result
    }

    async fn create_with(&self, id: &str, request: CreateContainerRequest) -> Result<u32, Refusal> {
        ids::check("container_id", id)?;
        let order = request::create(request)?;
        {
            let mut state = self.lock();
            if state.containers.contains_key(id) {
                return Err(Refusal::exists(format!("container {id:?} exists already")));
            }
            state.containers.insert(id.to_owned(), Slot::Busy);
        }
        let result = self.make(id, order).await;
        let mut state = self.lock();
        match result {
            Ok(container) => {
                let pid = container.init().pid();
                state.containers.insert(id.to_owned(), Slot::Ready(container));
                Ok(pid)
            }
            Err(refusal) => {
                state.containers.remove(id);
                Err(refusal)
            }
        }
    }

    async fn make(&self, id: &str, order: CreateOrder) -> Result<Arc<Container>, Refusal> {
        let streams = self.parking.take(id, INIT_PROCESS, &order.streams)?;
        let scratch = self.provide_storage(id, &order)?;
        let result = self.make_in(id, order, scratch.clone(), streams).await;
        if let (Err(_), Some(directory)) = (&result, scratch) {
            files::remove_tree(&self.program, &self.reaper, directory).await;
        }
        result
    }

    async fn make_in(
        &self,
        id: &str,
        mut order: CreateOrder,
        scratch: Option<String>,
        streams: ProcessStreams,
    ) -> Result<Arc<Container>, Refusal> {
        let group = order.cgroup_path.as_deref().unwrap_or(id);
        let cgroup = Arc::new(Cgroup::create(group, &order.cgroup_settings)?);
        let namespaces = order.plan.namespaces;
        let device_rules = std::mem::take(&mut order.device_rules);
        let job = Job::Create(Box::new(order.into_plan(scratch.clone())));
        let parts = Parts { id: id.to_owned(), namespaces, cgroup: Arc::clone(&cgroup), scratch };
        let result = match cgroup.restrict_devices(&device_rules) {
            Ok(()) => Container::create(parts, &self.program, &job, streams, &self.reaper).await,
            Err(refusal) => Err(refusal),
        };
        if result.is_err() {
            // The reason for the failure is told; that something of its remains cannot be removed would hide it.
            let _ = cgroup.remove().await;
        }
        result
    }

    /// Mounts the shares that the container needs and makes its directory on the scratch disk.
    fn provide_storage(&self, id: &str, order: &CreateOrder) -> Result<Option<String>, Refusal> {
        let mut state = self.lock();
        for path in order.guest_paths() {
            state.shares.provide(path)?;
        }
        order.scratch_serial.as_deref().map(|serial| state.scratch.prepare(serial, id)).transpose()
    }

    /// Starts a created container.
    pub(crate) async fn start(&self, container_id: &str) -> Result<Started, Refusal> {
        let container = self.container(container_id)?;
        let process = container.init();
        Ok(process.start().await?.map(|()| process.pid()))
    }

    /// Runs a further process in a container.
    pub(crate) async fn exec(&self, request: ExecRequest) -> Result<Started, Refusal> {
        let (container_id, process_id) = (request.container_id.clone(), request.process_id.clone());
        let result = self.exec_with(&process_id, request).await;
        if result.is_err() {
            self.parking.discard(&container_id, &process_id);
        }
        result
    }

    async fn exec_with(&self, process_id: &str, request: ExecRequest) -> Result<Started, Refusal> {
        ids::check("process_id", process_id)?;
        let container = self.container(&request.container_id)?;
        container.check_running()?;
        let (job, streams) = request::exec(request, container.namespaces())?;
        let streams = self.parking.take(container.id(), process_id, &streams)?;
        let process = container.add_process(process_id, &self.program, &job, streams, &self.reaper).await?;
        Ok(process.start().await?.map(|()| process.pid()))
    }

    /// The process with those ids.
    pub(crate) fn process(&self, container_id: &str, process_id: &str) -> Result<Arc<Process>, Refusal> {
        self.container(container_id)?.process(process_id)
    }

    /// Sends a signal to a process, or to all of its container.
    pub(crate) fn signal(&self, container_id: &str, process_id: &str, number: u32, all: bool) -> Result<(), Refusal> {
        if !(1..=crate::sys::signal::SIGNAL_MAX).contains(&number) {
            return Err(Refusal::invalid(format!("signal {number} is not within 1 to 64")));
        }
        let container = self.container(container_id)?;
        if all { container.signal_all(number) } else { container.process(process_id)?.signal(number) }
    }

    /// Kills what is left of a container and forgets it.
    pub(crate) async fn delete(&self, container_id: &str) -> Result<(), Refusal> {
        let container = self.container(container_id)?;
        if let Some(slot) = self.lock().containers.get_mut(container_id) {
            *slot = Slot::Busy;
        }
        let removed = container.cgroup().remove().await;
        if let Err(error) = removed {
            if let Some(slot) = self.lock().containers.get_mut(container_id) {
                *slot = Slot::Ready(container);
            }
            return Err(Refusal::internal(format!("remove the cgroup of {container_id:?}: {error}")));
        }
        if let Some(directory) = container.scratch() {
            files::remove_tree(&self.program, &self.reaper, directory.to_owned()).await;
        }
        self.lock().containers.remove(container_id);
        Ok(())
    }

    /// Numbers of a container, or of the whole guest if the id is empty.
    pub(crate) fn stats(&self, container_id: &str) -> Result<StatsResponse, Refusal> {
        if container_id.is_empty() {
            return Ok(stats::of_guest());
        }
        Ok(stats::of_container(self.container(container_id)?.cgroup()))
    }

    /// Gives the shares back, with everything written that the guest has changed.
    pub(crate) fn release_storage(&self) {
        self.lock().shares.release();
    }

    fn container(&self, container_id: &str) -> Result<Arc<Container>, Refusal> {
        match self.lock().containers.get(container_id) {
            Some(Slot::Ready(container)) => Ok(Arc::clone(container)),
            Some(Slot::Busy) => {
                Err(Refusal::precondition(format!("container {container_id:?} is being made or deleted")))
            }
            None => Err(Refusal::not_found(format!("there is no container {container_id:?}"))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
