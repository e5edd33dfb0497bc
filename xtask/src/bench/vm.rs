//! One VM run by the `vmm` program alone: from its configuration, without the `sandbox` command around it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bulkhead_protocols::control::{Request, Response};
use bulkhead_protocols::vm::VmConfig;
use bulkhead_protocols::wire::{INIT_PROCESS, READY_LINE, READY_PORT, STDIO_ACCEPTED, STDIO_PORT};
use tempfile::TempDir;

/// How long a guest may take to boot, in a lab on a busy machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
/// How often something that cannot be waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A running vmm; killed when dropped.
pub(super) struct Vm {
    child: Child,
    config: VmConfig,
    ready: UnixListener,
    _runtime_dir: TempDir,
}

impl Vm {
    /// Starts a VM as `config` says, with a runtime directory and sockets of its own.
    pub(super) fn start(vmm: &Path, mut config: VmConfig) -> anyhow::Result<Self> {
        let runtime_dir = tempfile::Builder::new().prefix("bench-").tempdir()?;
        config.runtime_dir = runtime_dir.path().to_owned();
        config.control_socket = runtime_dir.path().join("control.sock");
        config.vsock.uds = runtime_dir.path().join("vsock.sock");
        let ready = UnixListener::bind(runtime_dir.path().join(format!("vsock.sock_{READY_PORT}")))?;
        let file = runtime_dir.path().join("vm.json");
        std::fs::write(&file, serde_json::to_vec(&config)?)?;
        let mut command = Command::new(vmm);
        command.arg("run").arg("--config").arg(file).stdin(Stdio::null());
        let child = command.spawn().with_context(|| vmm.display().to_string())?;
        Ok(Self { child, config, ready, _runtime_dir: runtime_dir })
    }

    /// The vmm's process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the guest's agent reports and answers: its report comes before it has set the guest up.
    pub(super) fn wait_for_agent(&mut self) -> anyhow::Result<()> {
        self.ready.set_nonblocking(true)?;
        let stream = self.wait("the agent", |vm| match vm.ready.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        stream.set_nonblocking(false)?;
        let mut line = String::new();
        stream.take(READY_LINE.len() as u64).read_to_string(&mut line)?;
        anyhow::ensure!(line == READY_LINE, "the agent reported {line:?}");
        self.ask_agent()
    }

    /// Opens a stream for a process, which the agent accepts as soon as it serves.
    fn ask_agent(&self) -> anyhow::Result<()> {
        let mut stream = BufReader::new(UnixStream::connect(&self.config.vsock.uds)?);
        let mut exchange = |line: &str, expected: &str| -> anyhow::Result<()> {
            stream.get_mut().write_all(line.as_bytes())?;
            let mut answer = String::new();
            stream.read_line(&mut answer)?;
            anyhow::ensure!(answer.starts_with(expected), "the guest answered {line:?} with {answer:?}");
            Ok(())
        };
        exchange(&format!("CONNECT {STDIO_PORT}\n"), "OK ")?;
        exchange(&format!("bench {INIT_PROCESS} stdout\n"), STDIO_ACCEPTED)
    }

    /// Waits until the guest's console shows a line that ends with `line`.
    pub(super) fn wait_for_console(&mut self, line: &str) -> anyhow::Result<()> {
        self.wait("the console", |vm| {
            // There is no socket in the vmm's first moments.
            let Ok(Response::ConsoleTail { text }) = vm.ask(Request::ConsoleTail { max_bytes: 4096 }) else {
                return Ok(None);
            };
            Ok(text.lines().any(|seen| seen.ends_with(line)).then_some(()))
        })
    }

    fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&Self) -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
        let begun = Instant::now();
        while begun.elapsed() < BOOT_TIMEOUT {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the vmm ended with {status} while the benchmark waited for {what}");
            }
            std::thread::sleep(LOOK);
        }
        bail!("{what} kept silent for {} s", BOOT_TIMEOUT.as_secs())
    }

    fn ask(&self, request: Request) -> anyhow::Result<Response> {
        ask(&self.config.control_socket, request)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One question to a vmm's control socket.
pub(super) fn ask(control_socket: &Path, request: Request) -> anyhow::Result<Response> {
    let mut stream = UnixStream::connect(control_socket)?;
    stream.write_all(format!("{}\n", serde_json::to_string(&request)?).as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
