//! The client of the guest's agent: one ttrpc connection over vsock, calls with deadlines.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_protocols::agent::{
    CreateContainerRequest, DeleteContainerRequest, Empty, ExecRequest, HelloRequest, HelloResponse, ProcessRequest,
    ResizeTerminalRequest, SignalRequest, StartContainerRequest, StartResponse, WaitResponse,
};
use bulkhead_protocols::agent_ttrpc::AgentClient as Service;
use bulkhead_protocols::wire::{AGENT_PORT, PROTOCOL_VERSION};
use ttrpc::context::Context;

use crate::runtime_dir::fill_random;
use crate::vsock::{self, VsockError};

/// How long a call may take that waits for nothing but the agent's own work.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes given to the guest's entropy pool.
const ENTROPY_BYTES: usize = 256;

/// Why a call to the agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent's port cannot be reached.
    #[error(transparent)]
    Connect(#[from] VsockError),
    /// The agent refused; its message says what and why.
    #[error("{message}")]
    Refused {
        /// Which call.
        call: &'static str,
        /// ttrpc status code.
        code: ttrpc::Code,
        /// The agent's words.
        message: String,
    },
    /// The connection broke or the answer did not come.
    #[error("the guest's agent did not answer {call}: {reason}")]
    Broken {
        /// Which call.
        call: &'static str,
        /// What ttrpc saw.
        reason: String,
    },
    /// The agent of another version of Bulkhead.
    #[error(
        "the guest image speaks version {guest} of the agent's protocol, this program version {PROTOCOL_VERSION}: install \
         both from one build"
    )]
    Version {
        /// The agent's version.
        guest: u32,
    },
}

impl AgentError {
    fn of(call: &'static str) -> impl FnOnce(ttrpc::Error) -> Self {
        move |error| match error {
            ttrpc::Error::RpcStatus(status) => {
                let code = status.code.enum_value().unwrap_or(ttrpc::Code::UNKNOWN);
                Self::Refused { call, code, message: status.message }
            }
            other => Self::Broken { call, reason: other.to_string() },
        }
    }

    /// Whether the guest may be gone, rather than the request wrong.
    pub fn is_broken(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Version { .. })
    }
}

/// A connection to the agent; clones share it.
#[derive(Clone)]
pub struct AgentClient {
    service: Service,
}

impl std::fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentClient").finish_non_exhaustive()
    }
}

impl AgentClient {
    /// Connects to the agent of the guest behind `uds`.
    ///
    /// # Errors
    /// The port cannot be reached.
    pub async fn connect(uds: &Path) -> Result<Self, AgentError> {
        let stream = vsock::connect(uds, AGENT_PORT).await?;
        let client = ttrpc::r#async::Client::new(ttrpc::r#async::transport::Socket::new(stream));
        Ok(Self { service: Service::new(client) })
    }

    /// Agrees on the protocol and gives the guest its clock and entropy.
    ///
    /// # Errors
    /// The agent does not answer, or is of another version.
    pub async fn hello(&self) -> Result<HelloResponse, AgentError> {
        let mut entropy = vec![0; ENTROPY_BYTES];
        fill_random(&mut entropy);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let request = HelloRequest {
            protocol_version: PROTOCOL_VERSION,
            realtime_ns: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
            entropy,
            ..Default::default()
        };
        let answer = self.service.hello(bounded(), &request).await.map_err(AgentError::of("Hello"))?;
        if answer.protocol_version != PROTOCOL_VERSION {
            return Err(AgentError::Version { guest: answer.protocol_version });
        }
        Ok(answer)
    }

    /// Builds a container whose first process waits.
    ///
    /// # Errors
    /// The request is wrong, or the guest does not answer.
    pub async fn create_container(&self, request: &CreateContainerRequest) -> Result<u32, AgentError> {
        let answer = self.service.create_container(bounded(), request).await;
        Ok(answer.map_err(AgentError::of("CreateContainer"))?.pid)
    }

    /// Lets a container's first process execute its program.
    ///
    /// # Errors
    /// No such container, or the guest does not answer. A program that cannot be executed is no error here.
    pub async fn start_container(&self, container_id: &str) -> Result<StartResponse, AgentError> {
        let request = StartContainerRequest { container_id: container_id.to_owned(), ..Default::default() };
        self.service.start_container(bounded(), &request).await.map_err(AgentError::of("StartContainer"))
    }

    /// Starts a further process in a container.
    ///
    /// # Errors
    /// The request is wrong, or the guest does not answer.
    pub async fn exec(&self, request: &ExecRequest) -> Result<StartResponse, AgentError> {
        self.service.exec(bounded(), request).await.map_err(AgentError::of("Exec"))
    }

    /// Returns when a process has ended, however long that takes.
    ///
    /// # Errors
    /// No such process, or the guest is gone.
    pub async fn wait(&self, container_id: &str, process_id: &str) -> Result<WaitResponse, AgentError> {
        let request = ProcessRequest {
            container_id: container_id.to_owned(),
            process_id: process_id.to_owned(),
            ..Default::default()
        };
        self.service.wait(Context::default(), &request).await.map_err(AgentError::of("Wait"))
    }

    /// Sends a signal to a process, or to all of its container.
    ///
    /// # Errors
    /// No such process, or the guest does not answer.
    pub async fn signal(&self, request: &SignalRequest) -> Result<(), AgentError> {
        self.service.signal(bounded(), request).await.map_err(AgentError::of("Signal")).map(drop)
    }

    /// Sets the size of a process's terminal.
    ///
    /// # Errors
    /// No such process, it has no terminal, or the guest does not answer.
    pub async fn resize_terminal(&self, request: &ResizeTerminalRequest) -> Result<(), AgentError> {
        self.service.resize_terminal(bounded(), request).await.map_err(AgentError::of("ResizeTerminal")).map(drop)
    }

    /// Kills what is left of a container and forgets it.
    ///
    /// # Errors
    /// No such container, or the guest does not answer.
    pub async fn delete_container(&self, container_id: &str) -> Result<(), AgentError> {
        let request = DeleteContainerRequest { container_id: container_id.to_owned(), ..Default::default() };
        self.service.delete_container(bounded(), &request).await.map_err(AgentError::of("DeleteContainer")).map(drop)
    }

    /// Asks the guest to power itself off.
    ///
    /// # Errors
    /// The guest does not answer within `timeout`.
    pub async fn shutdown(&self, timeout: Duration) -> Result<(), AgentError> {
        let context = ttrpc::context::with_duration(timeout);
        self.service.shutdown(context, &Empty::default()).await.map_err(AgentError::of("Shutdown")).map(drop)
    }
}

fn bounded() -> Context {
    ttrpc::context::with_duration(CALL_TIMEOUT)
}
