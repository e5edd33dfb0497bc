//! The two pumps: from the guest to a descriptor until end of file, and from a descriptor to the guest until cancelled.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::oneshot;

/// Bytes moved at a time: what a pipe holds.
const BUFFER_BYTES: usize = 64 * 1024;

/// Copies a stream of the guest to a descriptor, to the last byte.
#[derive(Debug)]
pub struct OutputPump {
    finished: oneshot::Receiver<io::Result<()>>,
}

impl OutputPump {
    /// Starts copying `stream` to `sink`.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn spawn(name: &str, stream: UnixStream, sink: OwnedFd) -> io::Result<Self> {
        let (done, finished) = oneshot::channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let result = copy_output(&stream, &sink);
            // When nobody reads the sink any more, the guest's process must see that as a writer to a broken pipe does.
            let _gone_already = stream.shutdown(Shutdown::Both);
            let _nobody_waits = done.send(result);
        })?;
        Ok(Self { finished })
    }

    /// Returns when everything is written: at the stream's end of file, or at the sink's first error.
    ///
    /// # Errors
    /// Writing to the sink failed; a reader that went away (`BrokenPipe`) is one such failure.
    pub async fn finished(&mut self) -> io::Result<()> {
        (&mut self.finished).await.unwrap_or(Ok(()))
    }
}

fn copy_output(mut stream: &UnixStream, sink: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The VM was ended: what it wrote before has been copied.
            Err(_) => 0,
        };
        match buffer.get(..count) {
            Some([]) | None => return Ok(()),
            Some(bytes) => write_all(sink.as_fd(), bytes)?,
        }
    }
}

/// Writes everything, also to a descriptor that somebody else has made non-blocking.
fn write_all(sink: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(sink, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(&mut [PollFd::from_borrowed_fd(sink, PollFlags::OUT)])?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Copies a descriptor to a stream of the guest; stops when dropped, even while the descriptor has nothing to read.
#[derive(Debug)]
pub struct InputPump {
    _cancel: OwnedFd,
}

impl InputPump {
    /// Starts copying `source` to `stream`. At the source's end of file the stream is half-closed.
    ///
    /// # Errors
    /// No thread or pipe can be made.
    pub fn spawn(name: &str, source: OwnedFd, stream: UnixStream) -> io::Result<Self> {
        let (cancelled, cancel) = pipe_with(PipeFlags::CLOEXEC)?;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // The guest learns the end in every case: end of file, an unreadable source, and our own end.
            let _its_error_is_its_end = copy_input(&source, &stream, &cancelled);
            let _gone_already = stream.shutdown(Shutdown::Write);
        })?;
        Ok(Self { _cancel: cancel })
    }
}

fn copy_input(source: &OwnedFd, mut stream: &UnixStream, cancelled: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let mut fds = [
            PollFd::new(source, PollFlags::IN),
            PollFd::new(cancelled, PollFlags::IN),
            // Hang-up and error are always reported: the process has closed its input.
            PollFd::new(stream, PollFlags::empty()),
        ];
        wait_for(&mut fds)?;
        let [readable, cancelled, closed] = fds.map(|fd| !fd.revents().is_empty());
        if cancelled || closed {
            return Ok(());
        }
        if !readable {
            continue;
        }
        match rustix::io::read(source, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => stream.write_all(buffer.get(..count).unwrap_or_default())?,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn wait_for(fds: &mut [PollFd<'_>]) -> io::Result<()> {
    loop {
        match poll(fds, None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
