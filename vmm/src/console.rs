//! The newest bytes of the guest's serial console, in a buffer that never grows beyond its bound.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// A ring of the newest `capacity` bytes the guest wrote.
#[derive(Debug)]
pub(crate) struct ConsoleBuffer {
    capacity: usize,
    bytes: Mutex<VecDeque<u8>>,
}

impl ConsoleBuffer {
    /// An empty buffer of at most `capacity` bytes; memory is taken as output comes.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, bytes: Mutex::default() }
    }

    /// Appends output, dropping the oldest bytes beyond the bound.
    pub(crate) fn push(&self, output: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = output.len().saturating_sub(self.capacity);
        let output = output.get(newest..).unwrap_or_default();
        let excess = (bytes.len() + output.len()).saturating_sub(self.capacity).min(bytes.len());
        bytes.drain(..excess);
        bytes.extend(output);
    }

    /// The newest output, at most `max_bytes`, from the start of a line if the cut falls inside one and a later line
    /// exists. What is not UTF-8 is replaced.
    pub(crate) fn tail(&self, max_bytes: usize) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = bytes.len().saturating_sub(max_bytes);
        let mut tail: Vec<u8> = bytes.iter().skip(skip).copied().collect();
        let inside_a_line = skip > 0 && bytes.get(skip - 1) != Some(&b'\n');
        let next_line = tail.iter().position(|byte| *byte == b'\n').map(|newline| newline + 1);
        if let Some(start) = next_line.filter(|start| inside_a_line && *start < tail.len()) {
            tail.drain(..start);
        }
        String::from_utf8_lossy(&tail).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_bytes_only() {
        let console = ConsoleBuffer::new(8);
        console.push(b"abcdef");
        console.push(b"ghij");
        assert_eq!(console.tail(100), "cdefghij");
        console.push(b"0123456789");
        assert_eq!(console.tail(100), "23456789");
    }

    #[test]
    fn tail_starts_at_a_line() {
        let console = ConsoleBuffer::new(64);
        console.push(b"first\nsecond\nthird\n");
        assert_eq!(console.tail(10), "third\n");
        assert_eq!(console.tail(13), "second\nthird\n");
        assert_eq!(console.tail(3), "rd\n");
    }

    #[test]
    fn replaces_what_is_not_utf8() {
        let console = ConsoleBuffer::new(64);
        console.push(&[b'a', 0xff, b'b']);
        assert_eq!(console.tail(64), "a\u{fffd}b");
    }
}
