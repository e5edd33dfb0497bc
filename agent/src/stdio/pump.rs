//! Moves bytes between a process's pipes or terminal and its vsock streams.
//!
//! Each direction has one buffer and reads only when the last bytes are written: a slow reader on either side makes the
//! other side wait, and nothing is lost. Where a stream's host end is gone, a process's output is read and dropped, so
//! that a process outlives the one who watched it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::parking::Stream;

/// Size of a buffer in bytes: what a pipe holds, and the longest vsock packet of the guest's driver. Its pages are
/// touched as far as bytes arrive.
const BUFFER_BYTES: usize = 64 * 1024;

/// The agent's end of a pipe or terminal.
pub(crate) type End = Arc<AsyncFd<OwnedFd>>;

/// Makes a descriptor fit for pumping.
pub(crate) fn end(fd: OwnedFd) -> io::Result<End> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(Arc::new(crate::sys::watch::watch(fd)?))
}

/// Starts moving what a process writes to its stream.
pub(crate) fn output(from: End, to: Stream) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut socket = to.socket;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        let mut watched = true;
        while read_some(&from, &mut buffer).await > 0 {
            watched = watched && socket.write_all(&buffer).await.is_ok();
            // The writer to a pipe that nobody reads must learn of it; a terminal is still to be drained.
            if !watched && !rustix::termios::isatty(&*from) {
                break;
            }
        }
        // Already closed by the host, if this fails.
        let _ = socket.shutdown(std::net::Shutdown::Write);
    })
}

/// Starts moving what the host sends to the process. The end of the stream closes `to`, unless others hold it too.
pub(crate) fn input(from: Stream, to: End) -> JoinHandle<()> {
    tokio::spawn(async move {
        let Stream { mut socket, early } = from;
        let mut buffer = early;
        buffer.reserve(BUFFER_BYTES);
        loop {
            if write_all(&to, &buffer).await.is_err() {
                return;
            }
            buffer.clear();
            if !matches!(socket.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
    })
}

/// Reads what there is into the emptied buffer; 0 at the end. A terminal whose other end is closed says EIO.
async fn read_some(from: &AsyncFd<OwnedFd>, buffer: &mut Vec<u8>) -> usize {
    loop {
        let Ok(mut ready) = from.readable().await else { return 0 };
        buffer.clear();
        let result = ready
            .try_io(|fd| rustix::io::read(fd.as_fd(), rustix::buffer::spare_capacity(buffer)).map_err(io::Error::from));
        match result {
            Ok(Ok(count)) => return count,
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(_)) => return 0,
            Err(_would_block) => {}
        }
    }
}

async fn write_all(to: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let mut ready = to.writable().await.map_err(|_| Errno::IO)?;
        match ready.try_io(|fd| rustix::io::write(fd.as_fd(), bytes).map_err(io::Error::from)) {
            Ok(Ok(count)) => bytes = bytes.get(count..).unwrap_or_default(),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            Err(_would_block) => {}
        }
    }
    Ok(())
}
