//! The life of a sandbox: one microVM, and the containers in it.
//!
//! ```text
//!            start()                        shutdown()
//!  config ───────────> Sandbox (guest ready) ──────────> gone, nothing left
//!     │                   │  │ create_container(), exec(): Process
//!     └─ error: gone      │  └─ a call fails because the guest ended: SandboxError::GuestEnded
//!                         └─ drop: the lifeline breaks, the vmm removes everything
//! ```
//!
//! [`Sandbox`] owns the runtime directory, the vmm process and the agent's connection; everything else borrows from it.
//! A `Sandbox` exists only between "ready" and "shut down", so no call can meet a VM that has not begun.

mod container;
mod error;
mod process;
mod start;

use std::path::PathBuf;
use std::time::Duration;

use bulkhead_protocols::agent::HelloResponse;
use bulkhead_protocols::control::Request;

pub use self::container::{Container, ContainerConfig, ContainerFile};
pub use self::error::{ConsoleTail, GuestEnd, SandboxError};
pub use self::process::{ExecFailure, ExecFailureKind, ExitStatus, Process, Started};
pub use self::start::{SandboxConfig, SharedPath};
use crate::agent::{AgentClient, AgentError};
use crate::control::ControlClient;
use crate::runtime_dir::{RuntimeDir, SandboxId};
use crate::vmm_process::VmmProcess;

/// How long a guest may take to power itself off.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long after a broken call the vmm may take to end, if that is why.
const EXIT_GRACE: Duration = Duration::from_secs(2);
/// Console bytes shown with an error.
const CONSOLE_TAIL_BYTES: u32 = 4096;

/// A running microVM whose agent answers.
#[derive(Debug)]
pub struct Sandbox {
    agent: AgentClient,
    vmm: VmmProcess,
    control: ControlClient,
    vsock: PathBuf,
    hello: HelloResponse,
    /// Some volume can be written to: the guest's cache may hold data of the host.
    writes_to_host: bool,
    // Last: the directory goes when nothing uses it any more.
    runtime_dir: RuntimeDir,
}

impl Sandbox {
    /// The sandbox's id.
    pub fn id(&self) -> &SandboxId {
        self.runtime_dir.id()
    }

    /// What the agent said of its guest when it first answered.
    pub fn guest(&self) -> &HelloResponse {
        &self.hello
    }

    /// The vmm's control socket.
    pub fn control(&self) -> &ControlClient {
        &self.control
    }

    /// Returns when the VM has ended, for whatever reason.
    pub async fn ended(&self) -> GuestEnd {
        GuestEnd::read(self.vmm.exit().await, &self.runtime_dir)
    }

    /// Ends the VM now, without asking the guest.
    pub fn kill(&self) {
        self.vmm.kill();
    }

    /// Ends the VM and removes what is left on the host. A guest that may hold unwritten data of the host's is asked to end
    /// itself first; any other has nothing that outlives it.
    pub async fn shutdown(self) {
        let orderly = async {
            let asked = if self.writes_to_host {
                self.agent.shutdown(SHUTDOWN_TIMEOUT).await.is_ok()
            } else {
                self.control.ask(Request::Shutdown).await.is_ok()
            };
            if asked {
                self.vmm.exit().await;
            }
        };
        // Whether it went well, came too late or was of no use: in the end the process is gone.
        let _in_time = tokio::time::timeout(SHUTDOWN_TIMEOUT, orderly).await;
        self.vmm.kill();
        self.vmm.exit().await;
    }

    /// Runs a call to the agent; if it fails because the guest is gone, the error says how the guest ended.
    async fn call<T>(&self, call: impl Future<Output = Result<T, AgentError>>) -> Result<T, SandboxError> {
        match call.await {
            Ok(answer) => Ok(answer),
            Err(error) if error.is_broken() => match tokio::time::timeout(EXIT_GRACE, self.ended()).await {
                Ok(end) => Err(SandboxError::GuestEnded(end)),
                Err(_) => Err(SandboxError::Agent(error)),
            },
            Err(error) => Err(SandboxError::Agent(error)),
        }
    }
}
