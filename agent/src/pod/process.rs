//! One process of a container, as the agent sees it.
//!
//! ```text
//! Prepared --start--> Running --> Ended
//!     \_______killed_____________/
//! ```
//! Prepared: `gate` holds the helper's socket. Ended: `outcome` holds how. A process that could not execute its program
//! goes from Prepared to Ended.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::Pid;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, watch};

use super::launch::{self, Launched};
use crate::container::{Failure, FailureKind, Report, START};
use crate::reaper::Ending;
use crate::server::Refusal;
use crate::stdio::pump::End;
use crate::sys::{packet, signal};

/// How a process ended, and whether the OOM killer had to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    /// Processes of the container fell to the OOM killer while this one ran.
    pub(crate) oom_killed: bool,
}

/// What leads to a process that runs.
#[derive(Clone, Debug)]
struct Handles {
    /// Refers to the process, whatever becomes of its id.
    pidfd: Arc<OwnedFd>,
    terminal: Option<End>,
}

/// A process of a container.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    /// Until it has ended: a process that is only remembered holds no descriptors.
    handles: std::sync::Mutex<Option<Handles>>,
    gate: Mutex<Option<AsyncFd<OwnedFd>>>,
    started: AtomicBool,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Process {
    /// Takes over what a launch left; `outcome` receives how the process ends.
    pub(super) fn new(launched: Launched, outcome: watch::Receiver<Option<Outcome>>) -> Self {
        let Launched { child, gate, terminal } = launched;
        Self {
            pid: child.pid,
            handles: std::sync::Mutex::new(Some(Handles { pidfd: Arc::new(child.pidfd), terminal })),
            gate: Mutex::new(Some(gate)),
            started: AtomicBool::new(false),
            outcome,
        }
    }

    /// Process id in the agent's pid namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Refers to the process, whatever becomes of its id.
    pub(crate) fn pidfd(&self) -> Result<Arc<OwnedFd>, Refusal> {
        Ok(self.handles()?.pidfd)
    }

    /// Lets go of a process that has ended.
    pub(super) fn release(&self) {
        *self.lock_handles() = None;
    }

    fn handles(&self) -> Result<Handles, Refusal> {
        self.lock_handles().clone().ok_or_else(|| Refusal::precondition("the process has ended"))
    }

    fn lock_handles(&self) -> MutexGuard<'_, Option<Handles>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was told to start.
    pub(crate) fn was_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    /// Lets a prepared process execute its program; the inner error is why that could not be executed.
    pub(crate) async fn start(&self) -> Result<Result<(), Failure>, Refusal> {
        let gate = self.gate.lock().await.take();
        let Some(gate) = gate else {
            return Err(Refusal::precondition("the process was started before"));
        };
        if self.has_ended() {
            return Err(Refusal::precondition("the process has ended before it was started"));
        }
        packet::send(gate.get_ref(), START, None)
            .map_err(|error| Refusal::internal(format!("tell the process to start: {error}")))?;
        self.started.store(true, Ordering::Relaxed);
        match launch::receive(&gate).await? {
            // The socket closes by itself when the program is executed.
            None => Ok(Ok(())),
            Some((Report::Failed(failure), _)) => match failure.kind {
                FailureKind::NotFound | FailureKind::NotExecutable => Ok(Err(failure)),
                FailureKind::Invalid | FailureKind::Internal => Err(launch::refusal(failure)),
            },
            Some((Report::Ready, _)) => Err(Refusal::internal("the helper reported twice that it is ready")),
        }
    }

    /// Returns how the process ended, once it has.
    pub(crate) async fn wait(&self) -> Result<Outcome, Refusal> {
        let mut outcome = self.outcome.clone();
        let ended = outcome
            .wait_for(Option::is_some)
            .await
            .map_err(|_| Refusal::internal("nobody watches the process any more"))?;
        (*ended).ok_or_else(|| Refusal::internal("the process ended without an outcome"))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, number: u32) -> Result<(), Refusal> {
        match signal::send_to(self.pidfd()?, number) {
            Ok(()) => Ok(()),
            Err(Errno::SRCH) => Err(Refusal::precondition("the process has ended")),
            Err(error) => Err(Refusal::internal(format!("send signal {number}: {error}"))),
        }
    }

    /// Changes the size of its terminal.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Result<(), Refusal> {
        let Some(terminal) = self.handles()?.terminal else {
            return Err(Refusal::precondition("the process has no terminal"));
        };
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal.get_ref(), size)
            .map_err(|error| Refusal::internal(format!("set the terminal's size: {error}")))
    }
}
