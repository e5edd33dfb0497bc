//! PID 1's duty: every child that ends is waited for, orphans of containers included. Owns who wants to know.
//!
//! The agent has one thread, and a child is registered in the same step in which it is started, so the reaper cannot see
//! a child's end before its registration. Nothing else in the agent waits for children.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// As a shell gives it: the program's status, or 128 + signal.
    pub(crate) exit_status: u32,
    /// The signal that ended it, 0 for none.
    pub(crate) signal: u32,
    /// Nanoseconds since 1970 by the guest's clock.
    pub(crate) at_ns: i64,
}

/// Who waits for which child.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    expected: Mutex<HashMap<Pid, oneshot::Sender<Ending>>>,
}

impl Reaper {
    /// Announces a child that was just started.
    pub(crate) fn expect(&self, pid: Pid) -> oneshot::Receiver<Ending> {
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(pid, sender);
        receiver
    }

    /// Reaps for as long as the agent lives.
    pub(crate) async fn run(self: Arc<Self>, mut child_signals: Signal) {
        loop {
            self.reap_ended();
            if child_signals.recv().await.is_none() {
                return;
            }
        }
    }

    fn reap_ended(&self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(waiter) = self.lock().remove(&pid) {
                // Whoever waited may have given up.
                let _ = waiter.send(ending(status.exit_status(), status.terminating_signal()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, oneshot::Sender<Ending>>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts listening for SIGCHLD; to be called before the first child is started.
pub(crate) fn child_signals() -> std::io::Result<Signal> {
    signal(SignalKind::child())
}

/// What the two readings of a wait status amount to; a core dump makes no difference.
fn ending(exit_status: Option<i32>, terminating_signal: Option<i32>) -> Ending {
    let at_ns = crate::init::clock::realtime_ns();
    let number = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
    match (number(exit_status), number(terminating_signal)) {
        (Some(exit_status), _) => Ending { exit_status, signal: 0, at_ns },
        (None, signal) => {
            let signal = signal.unwrap_or(0);
            Ending { exit_status: 128 + signal, signal, at_ns }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        let exited = ending(Some(7), None);
        assert_eq!((exited.exit_status, exited.signal), (7, 0));
        let killed = ending(None, Some(libc::SIGKILL));
        assert_eq!((killed.exit_status, killed.signal), (137, 9));
    }
}
