//! The standard streams of a process in the guest: opened before the process is made, then pumped.
//!
//! Each stream is a vsock connection of its own. A pump is one thread that moves bytes between a stream and a descriptor of
//! the host with one buffer: a slow reader slows the guest down, it never fills our memory. Threads, because the host's
//! descriptors may be files, pipes or terminals shared with other processes, which must not be made non-blocking.

mod pump;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use bulkhead_protocols::agent::Stdio;
use bulkhead_protocols::wire::{STDIO_ACCEPTED, STDIO_HEADER_MAX, STDIO_PORT};
use tokio::io::AsyncWriteExt as _;

pub use self::pump::{InputPump, OutputPump};
use crate::vsock::{self, VsockError, read_line};

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// The guest's port cannot be reached.
    #[error(transparent)]
    Connect(#[from] VsockError),
    /// The agent refused it.
    #[error("the guest's agent refused the {stream} stream: {answer}")]
    Refused {
        /// Which stream.
        stream: &'static str,
        /// The agent's words.
        answer: String,
    },
    /// The connection broke.
    #[error("cannot open the {stream} stream")]
    Io {
        /// Which stream.
        stream: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Which streams a process has; one it does not have is `/dev/null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSet {
    /// Input.
    pub stdin: bool,
    /// Output, or all of a terminal's.
    pub stdout: bool,
    /// Errors; never with a terminal.
    pub stderr: bool,
}

impl StreamSet {
    pub(crate) fn to_message(self) -> Stdio {
        Stdio { stdin: self.stdin, stdout: self.stdout, stderr: self.stderr, ..Default::default() }
    }
}

/// The open streams of one process, blocking sockets.
#[derive(Debug, Default)]
pub struct Streams {
    /// To the process.
    pub stdin: Option<UnixStream>,
    /// From the process.
    pub stdout: Option<UnixStream>,
    /// From the process.
    pub stderr: Option<UnixStream>,
}

impl Streams {
    /// Opens the streams of `set` for a process that is to be made within the next seconds.
    ///
    /// # Errors
    /// The guest does not answer or refuses.
    pub(crate) async fn open(uds: &Path, container: &str, process: &str, set: StreamSet) -> Result<Self, StdioError> {
        let open = |wanted: bool, stream| async move {
            if wanted { open_stream(uds, container, process, stream).await.map(Some) } else { Ok(None) }
        };
        let (stdin, stdout, stderr) =
            tokio::try_join!(open(set.stdin, "stdin"), open(set.stdout, "stdout"), open(set.stderr, "stderr"))?;
        Ok(Self { stdin, stdout, stderr })
    }
}

async fn open_stream(
    uds: &Path,
    container: &str,
    process: &str,
    stream: &'static str,
) -> Result<UnixStream, StdioError> {
    let mut socket = vsock::connect(uds, STDIO_PORT).await?;
    let handshake = async {
        socket.write_all(format!("{container} {process} {stream}\n").as_bytes()).await?;
        let answer = read_line(&mut socket, STDIO_HEADER_MAX).await?;
        let socket = socket.into_std()?;
        socket.set_nonblocking(false)?;
        io::Result::Ok((socket, answer))
    };
    let (socket, answer) = handshake.await.map_err(|source| StdioError::Io { stream, source })?;
    if answer == STDIO_ACCEPTED.trim_end() { Ok(socket) } else { Err(StdioError::Refused { stream, answer }) }
}
