//! One timer for many deadlines: it goes off at the earliest, and whoever is late is found by looking.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

/// A timer that is set to at most one moment.
#[derive(Debug)]
pub(super) struct Timer {
    descriptor: OwnedFd,
    goes_off_at: Option<Instant>,
}

impl Timer {
    /// A timer that is not set.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { descriptor: timerfd_create(TimerfdClockId::Monotonic, flags)?, goes_off_at: None })
    }

    /// Readable once it has gone off.
    pub(super) fn expired(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Makes it go off at `deadline`, if it would not sooner.
    pub(super) fn wake_at(&mut self, deadline: Instant, now: Instant) -> io::Result<()> {
        if self.goes_off_at.is_some_and(|moment| moment <= deadline) {
            return Ok(());
        }
        // Zero would disarm it.
        let wait = deadline.saturating_duration_since(now).max(Duration::from_millis(1));
        let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: seconds, tv_nsec: i64::from(wait.subsec_nanos()) },
        };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &once)?;
        self.goes_off_at = Some(deadline);
        Ok(())
    }

    /// Takes back what it was set to.
    pub(super) fn cancel(&mut self) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // The descriptor is a timer and the value is valid: it cannot fail.
        let _set = timerfd_settime(
            &self.descriptor,
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: zero, it_value: zero },
        );
        self.disarm();
    }

    /// Takes note that it has gone off.
    pub(super) fn disarm(&mut self) {
        // Only to make it unreadable again; how often it expired does not matter.
        let _expirations = rustix::io::read(&self.descriptor, &mut [0_u8; 8]);
        self.goes_off_at = None;
    }
}
