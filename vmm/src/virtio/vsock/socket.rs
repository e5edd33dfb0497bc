//! The host's end of a stream: a non-blocking UNIX socket and the bytes it would not take yet.
//!
//! It owns both. What is known of the socket's readiness is kept here, because it is watched edge-triggered.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// One client of the host.
#[derive(Debug)]
pub(super) struct HostSocket {
    stream: UnixStream,
    /// Bytes of the guest that the socket would not take yet; the guest's credit bounds them.
    waiting: VecDeque<u8>,
    /// There may be something to read.
    pub(super) readable: bool,
    /// The client has closed both directions.
    pub(super) hung_up: bool,
    /// The client sends no more, and all it sent was read.
    pub(super) end_of_file: bool,
    /// The client reads no more.
    pub(super) write_failed: bool,
    /// Nothing follows `waiting`: close the sending direction once it is empty.
    finish: bool,
}

impl HostSocket {
    /// Takes over a non-blocking socket.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            waiting: VecDeque::new(),
            readable: false,
            hung_up: false,
            end_of_file: false,
            write_failed: false,
            finish: false,
        }
    }

    /// The socket itself.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether bytes wait for a reader that is still there.
    pub(super) fn has_more_to_write(&self) -> bool {
        !self.waiting.is_empty() && !self.write_failed
    }

    /// Writes all of `bytes` at once, or says that it could not.
    pub(super) fn write_now(&mut self, bytes: &[u8]) -> bool {
        self.write(bytes) == bytes.len()
    }

    /// Writes or keeps `bytes`; returns how many are off our hands.
    pub(super) fn send(&mut self, bytes: &[u8]) -> usize {
        let written = if self.waiting.is_empty() { self.write(bytes) } else { 0 };
        if self.write_failed {
            return bytes.len();
        }
        self.waiting.extend(bytes.get(written..).unwrap_or_default());
        written
    }

    /// Writes what waits; returns how many bytes are off our hands.
    pub(super) fn flush(&mut self) -> usize {
        let before = self.waiting.len();
        while !self.waiting.is_empty() && !self.write_failed {
            let waiting = std::mem::take(&mut self.waiting);
            let written = self.write(waiting.as_slices().0);
            self.waiting = waiting;
            self.waiting.drain(..written);
            if written == 0 {
                break;
            }
        }
        if self.write_failed || self.waiting.is_empty() {
            // Gives the memory back: most connections never need it again.
            self.waiting = VecDeque::new();
            self.close_if_finished();
        }
        before - self.waiting.len()
    }

    /// Writes what the socket takes at once.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    // The reader is gone. Not an error of ours: the guest is told by SHUTDOWN.
                    self.write_failed = true;
                    break;
                }
            }
        }
        bytes.len() - rest.len()
    }

    /// Reads what is there; 0 when nothing is, for now or for ever.
    pub(super) fn receive(&mut self, into: &mut [u8]) -> usize {
        loop {
            match self.stream.read(into) {
                Ok(0) => {
                    self.end_of_file = true;
                    self.readable = false;
                    return 0;
                }
                Ok(len) => return len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return 0;
                }
                // The client closed with bytes of ours unread.
                Err(_) => {
                    self.end_of_file = true;
                    self.hung_up = true;
                    self.readable = false;
                    return 0;
                }
            }
        }
    }

    /// The guest will not take more: the client's writes fail from now on.
    pub(super) fn stop_reading(&mut self) {
        self.readable = false;
        self.end_of_file = true;
        // Fails only if the client is gone already.
        let _gone = self.stream.shutdown(Shutdown::Read);
    }

    /// The guest will not send more: the client reads end of file after what waits.
    pub(super) fn finish_writing(&mut self) {
        self.finish = true;
        if self.waiting.is_empty() {
            self.close_if_finished();
        }
    }

    fn close_if_finished(&mut self) {
        if self.finish {
            // Fails only if the client is gone already.
            let _gone = self.stream.shutdown(Shutdown::Write);
        }
    }
}
