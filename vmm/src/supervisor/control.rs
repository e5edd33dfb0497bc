//! The control socket's clients: one JSON object per line each way, answers in order.
//!
//! A client costs a bounded amount of memory: a line is bounded, and nothing is read while an answer waits to be taken.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use bulkhead_protocols::control::{Request, Response};
use bulkhead_protocols::vm::Accelerator;
use rustix::event::PollFlags;

use crate::accelerator::Session;

/// How long no client is taken when descriptors have run out.
const OUT_OF_DESCRIPTORS_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
/// Longest request line; the longest there is has about 60 bytes.
pub(super) const LINE_BYTES_MAX: usize = 4096;
/// More clients than a sandbox ever has; one more is hung up on.
pub(super) const CLIENTS_MAX: usize = 16;

/// Answers requests.
pub(super) struct Server<'a> {
    session: &'a Session,
    accelerator: Accelerator,
}

impl<'a> Server<'a> {
    /// Answers for this session.
    pub(super) fn new(session: &'a Session, accelerator: Accelerator) -> Self {
        Self { session, accelerator }
    }

    fn answer(&self, line: &[u8]) -> Response {
        match serde_json::from_slice(line) {
            Ok(request) => self.respond(request),
            Err(error) => Response::Error { message: format!("not a request: {error}") },
        }
    }

    fn respond(&self, request: Request) -> Response {
        let session = self.session;
        match request {
            Request::State => {
                Response::State { phase: session.phase(), accelerator: self.accelerator, pid: session.guest_pid() }
            }
            Request::Counters => Response::Counters { counters: session.counters.snapshot() },
            Request::ConsoleTail { max_bytes } => {
                Response::ConsoleTail { text: session.console.tail(max_bytes as usize) }
            }
            Request::Shutdown => match session.request_stop() {
                Ok(()) => Response::Done,
                Err(error) => Response::Error { message: format!("cannot stop the VM: {error}") },
            },
        }
    }
}

/// One connection.
pub(super) struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    open: bool,
}

impl Client {
    /// A connection that has said nothing yet.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, input: Vec::new(), output: Vec::new(), open: true })
    }

    /// Whether the connection is of further use.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> PollFlags {
        if self.output.is_empty() { PollFlags::IN } else { PollFlags::OUT }
    }

    /// Goes on after `events`; a client that breaks the rules or is gone is closed.
    pub(super) fn serve(&mut self, events: PollFlags, server: &Server<'_>) {
        if events.is_empty() {
            return;
        }
        if self.progress(server).is_err() {
            self.open = false;
        }
    }

    fn progress(&mut self, server: &Server<'_>) -> io::Result<()> {
        if self.output.is_empty() {
            self.receive()?;
        }
        loop {
            self.send()?;
            if !self.output.is_empty() {
                return Ok(());
            }
            let Some(newline) = self.input.iter().position(|byte| *byte == b'\n') else { break };
            let line: Vec<u8> = self.input.drain(..=newline).collect();
            serde_json::to_writer(&mut self.output, &server.answer(&line))?;
            self.output.push(b'\n');
        }
        if self.input.len() > LINE_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "line too long"));
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = [0; LINE_BYTES_MAX];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.input.extend(bytes.iter().take(count));
                Ok(())
            }
            Err(error) if is_temporary(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if is_temporary(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        // A large answer's memory is not kept.
        self.output = Vec::new();
        Ok(())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Takes the connections that wait, up to the bound.
pub(super) fn accept(listener: &UnixListener, clients: &mut Vec<Client>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) if clients.len() < CLIENTS_MAX => clients.extend(Client::new(stream)),
            Ok(_) => {}
            Err(error) if is_temporary(&error) => return Ok(()),
            // The client left again.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => return Ok(()),
            // Out of descriptors is no reason to stop the VM; the waiting client would be reported again at once.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                std::thread::sleep(OUT_OF_DESCRIPTORS_PAUSE);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
