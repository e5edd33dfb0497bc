//! The host's end of the guest's vsock: one UNIX socket, with the port asked for in a first line.
//!
//! The convention is Firecracker's: write `CONNECT <port>\n`, read `OK <host port>\n`, then the bytes are the guest's.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Longest answer to `CONNECT`, newline included.
const ANSWER_MAX_BYTES: usize = 32;
/// How long the guest may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a guest's port could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The vmm's socket cannot be used.
    #[error("cannot reach vsock port {port} of the guest through {}", uds.display())]
    Io {
        /// The guest's port.
        port: u32,
        /// The vmm's socket.
        uds: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens there.
    #[error("the guest refused a connection to its vsock port {port}")]
    Refused {
        /// The guest's port.
        port: u32,
    },
    /// No answer.
    #[error("the guest did not accept a connection to its vsock port {port} within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut {
        /// The guest's port.
        port: u32,
    },
}

/// Connects to `port` of the guest behind `uds`.
///
/// # Errors
/// The vmm is gone, or the guest does not accept.
pub async fn connect(uds: &Path, port: u32) -> Result<UnixStream, VsockError> {
    let handshake = async {
        let mut stream = UnixStream::connect(uds).await?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
        let answer = read_line(&mut stream, ANSWER_MAX_BYTES).await?;
        io::Result::Ok((stream, answer))
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, handshake).await {
        Ok(Ok((stream, answer))) if answer.starts_with("OK ") => Ok(stream),
        Ok(Ok(_)) => Err(VsockError::Refused { port }),
        // The vmm closes the connection when the guest refuses it.
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(VsockError::Refused { port }),
        Ok(Err(source)) => Err(VsockError::Io { port, uds: uds.to_owned(), source }),
        Err(_) => Err(VsockError::TimedOut { port }),
    }
}

/// Reads one line without its newline and not a byte beyond it, since what follows belongs to somebody else.
pub(crate) async fn read_line(stream: &mut UnixStream, max_bytes: usize) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return String::from_utf8(line).map_err(io::Error::other),
            byte if line.len() < max_bytes => line.push(byte),
            _ => return Err(io::Error::other(format!("a line of more than {max_bytes} bytes"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn guest(answer: &'static [u8]) -> (tempfile::TempDir, Result<UnixStream, VsockError>) {
        let dir = tempfile::tempdir().unwrap();
        let uds = dir.path().join("v");
        let listener = UnixListener::bind(&uds).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_eq!(read_line(&mut stream, 64).await.unwrap(), "CONNECT 1024");
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let (client, ()) = tokio::join!(connect(&uds, 1024), server);
        (dir, client)
    }

    #[tokio::test]
    async fn leaves_the_first_bytes_of_the_guest_unread() {
        let (_dir, stream) = guest(b"OK 1073741824\nhello").await;
        let mut rest = String::new();
        stream.unwrap().read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "hello");
    }

    #[tokio::test]
    async fn a_refusal_is_told_from_a_dead_vmm() {
        assert!(matches!(guest(b"").await.1, Err(VsockError::Refused { port: 1024 })));
        assert!(matches!(guest(b"NO\n").await.1, Err(VsockError::Refused { port: 1024 })));
        let gone = connect(Path::new("/nonexistent/v"), 7).await;
        assert!(matches!(gone, Err(VsockError::Io { port: 7, .. })));
        let flood = guest(&[b'x'; 100]).await.1;
        assert!(matches!(flood, Err(VsockError::Io { .. })));
    }
}
