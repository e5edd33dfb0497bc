//! Signals that end a program when nobody catches them: caught from the start, and passed on to the container's process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// After this many interrupts the user is taken at their word.
const INTERRUPTS_TO_END: u32 = 3;

/// What to do about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Pass this signal number on.
    Forward(i32),
    /// End the VM: the container has not obeyed.
    End,
}

/// Counts interrupts.
#[derive(Clone, Debug, Default)]
pub struct Escalation {
    interrupts: u32,
}

impl Escalation {
    /// Decides about one signal.
    pub fn take(&mut self, signal: i32) -> Action {
        if signal == SignalKind::interrupt().as_raw_value() {
            self.interrupts += 1;
        }
        if self.interrupts >= INTERRUPTS_TO_END { Action::End } else { Action::Forward(signal) }
    }
}

/// Signals sent to this process that would end it: TERM, INT, HUP, QUIT, USR1, USR2 and ALRM.
#[derive(Debug)]
pub struct TerminationSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    quit: Signal,
    user_1: Signal,
    user_2: Signal,
    alarm: Signal,
}

impl TerminationSignals {
    /// Catches the signals from now on, for the rest of the process's life.
    ///
    /// # Errors
    /// The kernel refuses the handlers.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
            alarm: signal(SignalKind::alarm())?,
        })
    }

    /// Returns the number of the next signal.
    pub async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.quit.recv() => SignalKind::quit(),
            _ = self.user_1.recv() => SignalKind::user_defined1(),
            _ = self.user_2.recv() => SignalKind::user_defined2(),
            _ = self.alarm.recv() => SignalKind::alarm(),
        };
        kind.as_raw_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_interrupt_ends_the_vm() {
        let mut escalation = Escalation::default();
        assert_eq!(escalation.take(2), Action::Forward(2));
        assert_eq!(escalation.take(15), Action::Forward(15));
        assert_eq!(escalation.take(2), Action::Forward(2));
        assert_eq!(escalation.take(2), Action::End);
        assert_eq!(escalation.take(15), Action::End);
    }
}
