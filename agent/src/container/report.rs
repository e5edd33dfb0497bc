//! What the helper tells the agent over their socket, and what it waits for.

use serde::{Deserialize, Serialize};

/// A message from the helper. After [`Report::Ready`] it waits for one message, [`START`]; when its socket then closes
/// without a [`Report::Failed`], the program runs.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Everything is prepared but the last steps before execve. With a terminal, its master comes along.
    Ready,
    /// It did not work, and the helper ends.
    Failed(Failure),
}

/// The message that lets a prepared helper execute its program.
pub(crate) const START: &[u8] = b"start";

/// Why the helper gave up.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// What was being done, with which value, and why it failed.
    pub(crate) message: String,
}

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    /// The request asks for something that cannot be.
    Invalid,
    /// No such program.
    NotFound,
    /// The program cannot be executed.
    NotExecutable,
    /// Anything else.
    Internal,
}

/// Longest message of a failure in bytes: a report must fit a packet.
const MESSAGE_MAX: usize = 2048;

impl Failure {
    /// The request is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, message)
    }

    /// A failure of `kind`; an overlong message is cut.
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_MAX {
            let end = (0..=MESSAGE_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
            message.truncate(end);
        }
        Self { kind, message }
    }
}

/// Adds to an error what was being done.
pub(crate) trait Doing<T> {
    /// An internal failure: `<what>: <error>`.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
    /// The same, but the request is to blame.
    fn asked(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(FailureKind::Internal, describe(&what(), error)))
    }

    fn asked(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(FailureKind::Invalid, describe(&what(), error)))
    }
}

fn describe(what: &str, error: impl Into<std::io::Error>) -> String {
    format!("{what}: {}", reason(&error.into()))
}

/// The text of an error as a shell would print it, in lower case and without the number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlong_message_is_cut_between_characters() {
        let failure = Failure::invalid(format!("x{}", "ä".repeat(MESSAGE_MAX)));
        assert_eq!(failure.message.len(), MESSAGE_MAX - 1);
        assert!(failure.message.ends_with('ä'));
    }

    #[test]
    fn errors_say_what_was_done_and_why_it_failed() {
        let error: Result<(), _> = Err(rustix::io::Errno::NOENT);
        let failure = error.asked(|| "open \"x\"".into()).unwrap_err();
        assert_eq!(failure, Failure::invalid("open \"x\": no such file or directory"));
    }
}
