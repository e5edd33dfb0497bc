//! The agent's service over ttrpc. It translates between messages and [`Pod`]; each call that changes something runs as a
//! task of its own, so that it is finished even if the host's connection is lost meanwhile.

pub(crate) mod listen;
mod refusal;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use bulkhead_protocols::agent::{
    CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest, Empty, ExecFailure, ExecRequest,
    HelloRequest, HelloResponse, ProcessRequest, ResizeTerminalRequest, SignalRequest, StartContainerRequest,
    StartResponse, StatsRequest, StatsResponse, WaitResponse, exec_failure,
};
use bulkhead_protocols::agent_ttrpc::{Agent, create_agent};
use bulkhead_protocols::wire::PROTOCOL_VERSION;
use tokio::signal::unix::Signal;
use ttrpc::r#async::TtrpcContext;

pub(crate) use refusal::Refusal;

use crate::container::FailureKind;
use crate::init::{BootTimes, clock};
use crate::pod::{Pod, Started};
use crate::reaper::Reaper;
use crate::stdio::parking::Parking;
use crate::sys::entropy;
use listen::Listeners;

/// What a ttrpc method returns.
type Reply<T> = ttrpc::Result<T>;

/// Starts everything that serves: the RPC server, the stdio listener, the reaper. Returns once they run.
pub(crate) async fn serve(
    listeners: Listeners,
    program: OwnedFd,
    child_signals: Signal,
    times: BootTimes,
) -> anyhow::Result<()> {
    let reaper = Arc::new(Reaper::default());
    let parking = Arc::new(Parking::default());
    let pod = Arc::new(Pod::new(program, Arc::clone(&reaper), Arc::clone(&parking)));
    tokio::spawn(reaper.run(child_signals));
    tokio::spawn(crate::stdio::listener::serve(listeners.stdio, parking));
    let service = Arc::new(Service { pod, times });
    let mut server = ttrpc::r#async::Server::new()
        .add_listener(listen::connections(listeners.rpc))
        .register_service(create_agent(service));
    server.start().await?;
    // The server lives as long as the agent: dropping it would close its connections.
    std::mem::forget(server);
    Ok(())
}

/// The service of all connections.
struct Service {
    pod: Arc<Pod>,
    times: BootTimes,
}

impl Service {
    /// Runs `work` to its end, whatever becomes of the connection that asked for it.
    async fn carry_out<T, F>(&self, work: impl FnOnce(Arc<Pod>) -> F) -> Reply<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let done = tokio::spawn(work(Arc::clone(&self.pod))).await;
        Ok(done.map_err(|error| Refusal::internal(format!("the task has ended: {error}")))??)
    }
}

#[async_trait]
impl Agent for Service {
    async fn hello(&self, _: &TtrpcContext, request: HelloRequest) -> Reply<HelloResponse> {
        Ok(greet(&request, self.times)?)
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> Reply<CreateContainerResponse> {
        let pid = self.carry_out(|pod| async move { pod.create(request).await }).await?;
        Ok(CreateContainerResponse { pid, ..Default::default() })
    }

    async fn start_container(&self, _: &TtrpcContext, request: StartContainerRequest) -> Reply<StartResponse> {
        let started = self.carry_out(|pod| async move { pod.start(&request.container_id).await }).await?;
        Ok(start_response(started))
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecRequest) -> Reply<StartResponse> {
        let started = self.carry_out(|pod| async move { pod.exec(request).await }).await?;
        Ok(start_response(started))
    }

    async fn wait(&self, _: &TtrpcContext, request: ProcessRequest) -> Reply<WaitResponse> {
        let outcome = self.pod.process(&request.container_id, &request.process_id)?.wait().await?;
        let ending = outcome.ending;
        Ok(WaitResponse {
            exit_status: ending.exit_status,
            signal: ending.signal,
            oom_killed: outcome.oom_killed,
            exited_at_ns: ending.at_ns,
            ..Default::default()
        })
    }

    async fn signal(&self, _: &TtrpcContext, request: SignalRequest) -> Reply<Empty> {
        self.pod.signal(&request.container_id, &request.process_id, request.signal, request.all)?;
        Ok(Empty::new())
    }

    async fn resize_terminal(&self, _: &TtrpcContext, request: ResizeTerminalRequest) -> Reply<Empty> {
        let (rows, columns) = (characters("rows", request.rows)?, characters("columns", request.columns)?);
        self.pod.process(&request.container_id, &request.process_id)?.resize(rows, columns)?;
        Ok(Empty::new())
    }

    async fn delete_container(&self, _: &TtrpcContext, request: DeleteContainerRequest) -> Reply<Empty> {
        self.carry_out(|pod| async move { pod.delete(&request.container_id).await }).await?;
        Ok(Empty::new())
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Reply<StatsResponse> {
        Ok(self.pod.stats(&request.container_id)?)
    }

    async fn shutdown(&self, _: &TtrpcContext, _: Empty) -> Reply<Empty> {
        let pod = Arc::clone(&self.pod);
        tokio::spawn(async move { crate::init::shut_down(&pod).await });
        Ok(Empty::new())
    }
}

fn greet(request: &HelloRequest, times: BootTimes) -> Result<HelloResponse, Refusal> {
    if request.protocol_version != PROTOCOL_VERSION {
        return Err(Refusal::invalid(format!(
            "protocol_version is {}; this guest's agent speaks {PROTOCOL_VERSION}: use a guest image of the same release",
            request.protocol_version
        )));
    }
    if request.realtime_ns > 0 {
        clock::set_realtime_ns(request.realtime_ns)
            .map_err(|error| Refusal::invalid(format!("realtime_ns {}: {error}", request.realtime_ns)))?;
    }
    if request.entropy.len() > entropy::ENTROPY_MAX {
        let (length, most) = (request.entropy.len(), entropy::ENTROPY_MAX);
        return Err(Refusal::invalid(format!("entropy has {length} bytes, more than {most}")));
    }
    if !request.entropy.is_empty() {
        entropy::add_entropy(&request.entropy)
            .map_err(|error| Refusal::internal(format!("add to the entropy pool: {error}")))?;
    }
    let uname = rustix::system::uname();
    Ok(HelloResponse {
        protocol_version: PROTOCOL_VERSION,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: uname.release().to_string_lossy().into_owned(),
        init_started_us: times.started_us,
        agent_ready_us: times.ready_us,
        memory_total_kib: crate::pod::memory_total_kib(),
        online_cpus: online_cpus(),
        ..Default::default()
    })
}

fn online_cpus() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(0, |set| set.count())
}

fn characters(field: &str, value: u32) -> Result<u16, Refusal> {
    u16::try_from(value)
        .ok()
        .filter(|value| *value > 0)
        .ok_or_else(|| Refusal::invalid(format!("{field} is {value}, not within 1 to 65535")))
}

fn start_response(started: Started) -> StartResponse {
    let mut response = StartResponse::new();
    match started {
        Ok(pid) => response.set_pid(pid),
        Err(failure) => {
            let kind = match failure.kind {
                FailureKind::NotFound => exec_failure::Kind::NOT_FOUND,
                FailureKind::NotExecutable => exec_failure::Kind::NOT_EXECUTABLE,
                FailureKind::Invalid | FailureKind::Internal => exec_failure::Kind::UNKNOWN,
            };
            let mut told = ExecFailure::new();
            told.kind = kind.into();
            told.message = failure.message;
            response.set_failure(told);
        }
    }
    response
}
