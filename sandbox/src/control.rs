//! The client of a vmm's control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_protocols::control::{Request, Response};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// Longest response that is read.
const RESPONSE_MAX_BYTES: u64 = 1024 * 1024;
/// How long a vmm may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a vmm did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be used.
    #[error("cannot ask the vmm through {}", socket.display())]
    Io {
        /// The control socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It refused.
    #[error("the vmm answered: {0}")]
    Refused(String),
    /// It answered another question.
    #[error("the vmm's answer does not fit the question {0:?}")]
    Unexpected(Request),
}

/// A vmm's control socket.
#[derive(Clone, Debug)]
pub struct ControlClient {
    socket: PathBuf,
}

impl ControlClient {
    /// A client of the vmm that serves `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks one question on a connection of its own.
    ///
    /// # Errors
    /// The vmm is gone, did not answer in time, or refused.
    pub async fn ask(&self, request: Request) -> Result<Response, ControlError> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match answer.map_err(|source| ControlError::Io { socket: self.socket.clone(), source })? {
            Response::Error { message } => Err(ControlError::Refused(message)),
            response => Ok(response),
        }
    }

    /// The newest lines of the guest's console.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn console_tail(&self, max_bytes: u32) -> Result<String, ControlError> {
        let request = Request::ConsoleTail { max_bytes };
        match self.ask(request).await? {
            Response::ConsoleTail { text } => Ok(text),
            _ => Err(ControlError::Unexpected(request)),
        }
    }

    async fn exchange(&self, request: Request) -> io::Result<Response> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let mut line = serde_json::to_vec(&request)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        BufReader::new(stream.take(RESPONSE_MAX_BYTES)).read_until(b'\n', &mut answer).await?;
        Ok(serde_json::from_slice(&answer)?)
    }
}
