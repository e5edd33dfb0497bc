//! The line with which the host opens a stream: `<container_id> <process_id> <stdin|stdout|stderr>\n`.

use crate::pod::ids;

/// One of the three streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StreamKind {
    Stdin,
    Stdout,
    Stderr,
}

impl StreamKind {
    /// The name in the header.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Which stream of which process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamKey {
    pub(crate) container_id: String,
    pub(crate) process_id: String,
    pub(crate) kind: StreamKind,
}

/// Reads a header line without its newline.
pub(crate) fn parse(line: &[u8]) -> Result<StreamKey, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "header is not UTF-8")?;
    let mut words = line.split(' ');
    let (Some(container), Some(process), Some(stream), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("header is not <container> <process> <stream>");
    };
    if !ids::is_valid(container) {
        return Err("invalid container id");
    }
    if !ids::is_valid(process) {
        return Err("invalid process id");
    }
    let kind = match stream {
        "stdin" => StreamKind::Stdin,
        "stdout" => StreamKind::Stdout,
        "stderr" => StreamKind::Stderr,
        _ => return Err("stream is none of stdin, stdout, stderr"),
    };
    Ok(StreamKey { container_id: container.to_owned(), process_id: process.to_owned(), kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_a_stream() {
        let key = parse(b"c1 init stdout").unwrap();
        let expected = StreamKey { container_id: "c1".into(), process_id: "init".into(), kind: StreamKind::Stdout };
        assert_eq!(key, expected);
        assert_eq!(parse(b"a.b_c-d e stdin").unwrap().kind.name(), "stdin");
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("{} init stdin", "x".repeat(129));
        for line in [
            &b""[..],
            b"c1 init",
            b"c1 init stdlog",
            b"c1 init stdin x",
            b"c1  stdin",
            b" init stdin",
            b"c/1 init stdin",
            b".. init stdin",
            b"c1 init stdin\r",
            b"\xff init stdin",
            long.as_bytes(),
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
