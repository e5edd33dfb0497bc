//! What a run came to: its exit status, and what the user is told.

use sandbox::lifecycle::{ExecFailure, ExecFailureKind, ExitStatus};

/// Exit status when the time was up, as timeout(1) has it.
const TIMED_OUT: u8 = 124;

/// How a run ended, other than by a failure of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The container's process ended.
    Exited(ExitStatus),
    /// Its program could not be executed.
    NotExecuted(ExecFailure),
    /// `--timeout` was over.
    TimedOut,
    /// A signal ended us before there was a process to pass it on to, or the user insisted.
    Interrupted(i32),
}

impl Outcome {
    /// The command's exit status.
    pub(super) fn status(&self) -> u8 {
        match self {
            Self::Exited(status) => status.code,
            Self::NotExecuted(failure) => match failure.kind {
                ExecFailureKind::NotFound => 127,
                ExecFailureKind::NotExecutable => 126,
            },
            Self::TimedOut => TIMED_OUT,
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }

    /// What the status alone does not tell. `memory_mib` is the container's limit.
    pub(super) fn message(&self, memory_mib: u64, timeout: Option<std::time::Duration>) -> Option<String> {
        match self {
            Self::Exited(status) if status.oom_killed => Some(format!(
                "out of memory: the container reached its {memory_mib} MiB and its kernel killed a process; give it more \
                 with -m"
            )),
            Self::Exited(_) | Self::Interrupted(_) => None,
            Self::NotExecuted(failure) => Some(failure.message.clone()),
            Self::TimedOut => {
                let seconds = timeout.unwrap_or_default().as_secs_f64();
                Some(format!("timed out: the container was ended after {seconds} s"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_docker_and_timeout() {
        let exited = |code, oom_killed| Outcome::Exited(ExitStatus { code, signal: None, oom_killed });
        let failed = |kind| Outcome::NotExecuted(ExecFailure { kind, message: "no".into() });
        for (outcome, status) in [
            (exited(0, false), 0),
            (exited(255, false), 255),
            (exited(137, true), 137),
            (failed(ExecFailureKind::NotFound), 127),
            (failed(ExecFailureKind::NotExecutable), 126),
            (Outcome::TimedOut, 124),
            (Outcome::Interrupted(2), 130),
            (Outcome::Interrupted(15), 143),
        ] {
            assert_eq!(outcome.status(), status, "{outcome:?}");
        }
    }

    #[test]
    fn only_what_the_status_hides_is_said() {
        let exited = |oom_killed| Outcome::Exited(ExitStatus { code: 137, signal: Some(9), oom_killed });
        assert_eq!(exited(false).message(512, None), None);
        assert!(exited(true).message(512, None).unwrap().contains("512 MiB"));
        let timeout = Some(std::time::Duration::from_millis(1500));
        assert!(Outcome::TimedOut.message(512, timeout).unwrap().contains("after 1.5 s"));
    }
}
