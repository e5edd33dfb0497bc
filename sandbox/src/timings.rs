//! How long each phase of a sandbox took, by the monotonic clock.

use std::time::{Duration, Instant};

use serde::Serialize;

/// One phase, from the end of the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// What was done, such as `guest boots`.
    pub name: &'static str,
    /// Microseconds it took.
    pub took_us: u64,
    /// Microseconds from the first mark's start to this phase's end.
    pub ended_us: u64,
}

/// A stopwatch with named laps.
#[derive(Clone, Debug)]
pub struct Timings {
    started: Instant,
    phases: Vec<Phase>,
}

impl Timings {
    /// Starts the clock.
    pub fn start() -> Self {
        Self { started: Instant::now(), phases: Vec::new() }
    }

    /// Ends the phase that began with the last mark.
    pub fn mark(&mut self, name: &'static str) {
        let ended_us = micros(self.started.elapsed());
        let before = self.phases.last().map_or(0, |phase| phase.ended_us);
        self.phases.push(Phase { name, took_us: ended_us.saturating_sub(before), ended_us });
    }

    /// The phases so far, in order.
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up() {
        let mut timings = Timings::start();
        std::thread::sleep(Duration::from_millis(2));
        timings.mark("first");
        timings.mark("second");
        let [first, second] = timings.phases() else { panic!("two phases") };
        assert!(first.took_us >= 2000 && first.took_us == first.ended_us);
        assert_eq!(first.took_us + second.took_us, second.ended_us);
    }
}
