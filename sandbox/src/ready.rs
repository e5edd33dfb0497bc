//! Waiting for a booted guest: the agent reports on a vsock port of the host when it listens.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_protocols::wire::{READY_LINE, READY_PORT};
use tokio::net::{UnixListener, UnixStream};

use crate::vmm_process::{VmmExit, VmmProcess};
use crate::vsock::read_line;

/// How long the guest may take to write its line once it is connected.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);

/// The socket on which a guest reports that it is ready; bound before the vmm starts, gone after the report.
#[derive(Debug)]
pub(crate) struct ReadyListener {
    listener: UnixListener,
    path: PathBuf,
}

/// What came instead of the report.
#[derive(Debug)]
pub(crate) enum NotReady {
    /// The vmm ended first.
    VmmExited(VmmExit),
    /// Nothing came.
    TimedOut,
    /// Something else than the agent's line came.
    Unexpected(String),
}

impl ReadyListener {
    /// Binds `<uds>_<READY_PORT>`.
    pub(crate) fn bind(uds: &Path) -> io::Result<Self> {
        let mut path = uds.as_os_str().to_owned();
        path.push(format!("_{READY_PORT}"));
        let path = PathBuf::from(path);
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    /// Returns when the agent has reported.
    pub(crate) async fn wait(self, vmm: &VmmProcess, timeout: Duration) -> Result<(), NotReady> {
        tokio::select! {
            report = self.report() => report,
            exit = vmm.exit() => Err(NotReady::VmmExited(exit)),
            () = tokio::time::sleep(timeout) => Err(NotReady::TimedOut),
        }
    }

    async fn report(&self) -> Result<(), NotReady> {
        let unexpected = |error: io::Error| NotReady::Unexpected(error.to_string());
        let (mut stream, _) = self.listener.accept().await.map_err(unexpected)?;
        let line = read_report(&mut stream).await.map_err(unexpected)?;
        if line == READY_LINE.trim_end() { Ok(()) } else { Err(NotReady::Unexpected(format!("{line:?}"))) }
    }
}

impl Drop for ReadyListener {
    fn drop(&mut self) {
        // It goes with the runtime directory at the latest.
        let _gone_already = std::fs::remove_file(&self.path);
    }
}

async fn read_report(stream: &mut UnixStream) -> io::Result<String> {
    let line = tokio::time::timeout(LINE_TIMEOUT, read_line(stream, READY_LINE.len())).await;
    line.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
