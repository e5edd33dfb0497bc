//! A host client that has connected but not yet said which port of the guest it wants: `CONNECT <port>\n`.
//!
//! The handshake owns its socket until the line is complete, refused or late.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

/// How long a client may take to write its line.
pub(super) const LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest line: `CONNECT 4294967295\n` has 19 bytes, some clients pad or end it with `\r\n`.
const LINE_MAX: usize = 32;

/// A client that has not finished its line.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) stream: UnixStream,
    pub(super) deadline: Instant,
}

/// What is known of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Not all of it is there.
    Incomplete,
    /// The guest's port.
    Port(u32),
    /// Something else, or too long, or the client is gone.
    Refused,
}

impl Handshake {
    /// Begins to wait for the line.
    pub(super) fn new(stream: UnixStream, now: Instant) -> Self {
        Self { stream, deadline: now + LINE_TIMEOUT }
    }

    /// Looks for the line and takes it from the socket, but not what a hasty client has written behind it.
    pub(super) fn read_line(&self) -> Line {
        let mut bytes = [0; LINE_MAX];
        let peeked = match recv(&self.stream, bytes.as_mut_slice(), RecvFlags::PEEK) {
            Ok((len, _)) => bytes.get(..len).unwrap_or_default(),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Line::Incomplete,
            Err(_) => return Line::Refused,
        };
        match peeked.iter().position(|byte| *byte == b'\n') {
            Some(newline) => {
                let port = peeked.get(..newline).and_then(parse);
                let mut line = [0; LINE_MAX];
                let taken = line.get_mut(..=newline).map(|line| recv(&self.stream, line, RecvFlags::empty()));
                match (port, taken) {
                    (Some(port), Some(Ok((len, _)))) if len == newline + 1 => Line::Port(port),
                    _ => Line::Refused,
                }
            }
            None if peeked.is_empty() || peeked.len() == LINE_MAX => Line::Refused,
            None => Line::Incomplete,
        }
    }
}

/// `CONNECT <port>`, the word in any case.
fn parse(line: &[u8]) -> Option<u32> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let command = words.next()?;
    let port = words.next()?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    (command.eq_ignore_ascii_case("connect") && digits && words.next().is_none()).then(|| port.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn pair() -> (UnixStream, Handshake) {
        let (client, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (client, Handshake::new(ours, Instant::now()))
    }

    #[test]
    fn a_line_may_come_in_pieces_and_what_follows_stays() {
        let (mut client, handshake) = pair();
        assert_eq!(handshake.read_line(), Line::Incomplete);
        client.write_all(b"CONNECT 10").unwrap();
        assert_eq!(handshake.read_line(), Line::Incomplete);
        client.write_all(b"24\npayload").unwrap();
        assert_eq!(handshake.read_line(), Line::Port(1024));
        let mut rest = [0; 7];
        (&handshake.stream).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"payload");
    }

    #[test]
    fn what_is_no_connect_line_is_refused() {
        for line in [
            "\n",
            "CONNECT\n",
            "CONNECT x\n",
            "CONNECT -1\n",
            "CONNECT +1\n",
            "CONNECT 4294967296\n",
            "CONNECT 1 2\n",
            "LISTEN 1\n",
            "a line that is longer than any port could make it\n",
            "00000000000000000000000000000000",
        ] {
            let (mut client, handshake) = pair();
            client.write_all(line.as_bytes()).unwrap();
            assert_eq!(handshake.read_line(), Line::Refused, "{line:?}");
        }
        let (client, handshake) = pair();
        drop(client);
        assert_eq!(handshake.read_line(), Line::Refused, "end of file");
    }

    #[test]
    fn the_words_case_and_a_carriage_return_do_not_matter() {
        let (mut client, handshake) = pair();
        client.write_all(b"connect 4294967295\r\n").unwrap();
        assert_eq!(handshake.read_line(), Line::Port(u32::MAX));
    }
}
