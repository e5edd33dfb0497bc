//! A process in a container: waited for, signalled, its terminal resized.

use bulkhead_protocols::agent::exec_failure::Kind;
use bulkhead_protocols::agent::{ExecFailure as Failure, ResizeTerminalRequest, SignalRequest, WaitResponse};

use super::Sandbox;
use super::error::SandboxError;
use crate::terminal::TerminalSize;

/// What became of a program that was to be executed.
#[derive(Debug)]
pub enum Started<'sandbox> {
    /// It runs.
    Running(Process<'sandbox>),
    /// It could not be executed; its process is gone.
    Failed(ExecFailure),
}

/// Why a program could not be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecFailure {
    /// Which exit status a shell would give.
    pub kind: ExecFailureKind,
    /// The agent's words.
    pub message: String,
}

/// The two ways a shell tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecFailureKind {
    /// No such program: 127.
    NotFound,
    /// There, and not executable: 126.
    NotExecutable,
}

impl ExecFailure {
    pub(super) fn from_message(failure: Failure) -> Self {
        let kind = match failure.kind.enum_value() {
            Ok(Kind::NOT_FOUND) => ExecFailureKind::NotFound,
            _ => ExecFailureKind::NotExecutable,
        };
        Self { kind, message: failure.message }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// 0 to 255, or 128 + signal.
    pub code: u8,
    /// The signal that ended it.
    pub signal: Option<u32>,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
}

impl ExitStatus {
    fn from_message(answer: &WaitResponse) -> Self {
        Self {
            code: u8::try_from(answer.exit_status & 0xff).unwrap_or(u8::MAX),
            signal: (answer.signal != 0).then_some(answer.signal),
            oom_killed: answer.oom_killed,
        }
    }
}

/// A process that was started.
#[derive(Clone, Debug)]
pub struct Process<'sandbox> {
    sandbox: &'sandbox Sandbox,
    container_id: String,
    process_id: String,
}

impl<'sandbox> Process<'sandbox> {
    pub(super) fn new(sandbox: &'sandbox Sandbox, container_id: &str, process_id: &str) -> Self {
        Self { sandbox, container_id: container_id.to_owned(), process_id: process_id.to_owned() }
    }

    /// Returns when the process has ended.
    ///
    /// # Errors
    /// The guest ended first.
    pub async fn wait(&self) -> Result<ExitStatus, SandboxError> {
        let wait = self.sandbox.agent.wait(&self.container_id, &self.process_id);
        let answer = tokio::select! {
            // An answer that has arrived counts, even if the guest ended right after it.
            biased;
            answer = self.sandbox.call(wait) => answer?,
            end = self.sandbox.ended() => return Err(SandboxError::GuestEnded(end)),
        };
        Ok(ExitStatus::from_message(&answer))
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// It is gone, or the guest is.
    pub async fn signal(&self, signal: u32) -> Result<(), SandboxError> {
        self.send(signal, false).await
    }

    /// Kills every process of the container.
    ///
    /// # Errors
    /// The guest has ended or does not answer.
    pub async fn kill_all(&self) -> Result<(), SandboxError> {
        self.send(rustix::process::Signal::KILL.as_raw().unsigned_abs(), true).await
    }

    /// Sets the size of the process's terminal.
    ///
    /// # Errors
    /// It has none, or is gone.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), SandboxError> {
        let request = ResizeTerminalRequest {
            container_id: self.container_id.clone(),
            process_id: self.process_id.clone(),
            rows: size.rows.into(),
            columns: size.columns.into(),
            ..Default::default()
        };
        self.sandbox.call(self.sandbox.agent.resize_terminal(&request)).await
    }

    async fn send(&self, signal: u32, all: bool) -> Result<(), SandboxError> {
        let request = SignalRequest {
            container_id: self.container_id.clone(),
            process_id: self.process_id.clone(),
            signal,
            all,
            ..Default::default()
        };
        self.sandbox.call(self.sandbox.agent.signal(&request)).await
    }
}
