//! Progress of a build: steps, elapsed time, files compiled. A few lines, not a flood.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

/// Least time between two reports within one step.
const INTERVAL: Duration = Duration::from_secs(10);

/// The part of the build that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Fetching the source from kernel.org.
    Download,
    /// Comparing the source's digest.
    Verify,
    /// Another process builds the same kernel; its result will do.
    Wait,
    /// Unpacking the source.
    Unpack,
    /// Making and checking the configuration.
    Configure,
    /// Compiling; the only long one.
    Compile,
    /// Stripping the result and putting it into the cache.
    Publish,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Download => "downloading the source",
            Self::Verify => "checking the source's digest",
            Self::Wait => "waiting for another process that builds the same kernel",
            Self::Unpack => "unpacking the source",
            Self::Configure => "configuring",
            Self::Compile => "compiling",
            Self::Publish => "storing the result",
        })
    }
}

/// One report.
#[derive(Debug, Clone)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Since the build started.
    pub elapsed: Duration,
    /// Files compiled so far; 0 before [`Step::Compile`].
    pub files_compiled: u32,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs();
        write!(f, "guest kernel: {}:{:02} {}", seconds / 60, seconds % 60, self.step)?;
        if self.files_compiled > 0 { write!(f, ", {} files", self.files_compiled) } else { Ok(()) }
    }
}

/// A progress function for command lines: one line on stderr per report.
pub fn print_to_stderr(progress: &Progress) {
    eprintln!("{progress}");
}

/// Passes on a report for each new step, and one per interval within a step.
pub(crate) struct Reporter<'a> {
    sink: &'a dyn Fn(&Progress),
    started: Instant,
    last: Cell<Option<(Step, Instant)>>,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(sink: &'a dyn Fn(&Progress)) -> Self {
        Self { sink, started: Instant::now(), last: Cell::new(None) }
    }

    pub(crate) fn report(&self, step: Step, files_compiled: u32) {
        let now = Instant::now();
        if let Some((last_step, at)) = self.last.get()
            && last_step == step
            && now.duration_since(at) < INTERVAL
        {
            return;
        }
        self.last.set(Some((step, now)));
        (self.sink)(&Progress { step, elapsed: now.duration_since(self.started), files_compiled });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn a_step_is_reported_once_within_an_interval() {
        let seen = RefCell::new(Vec::new());
        let sink = |progress: &Progress| seen.borrow_mut().push((progress.step, progress.files_compiled));
        let reporter = Reporter::new(&sink);
        for files in 0..1000 {
            reporter.report(Step::Compile, files);
        }
        reporter.report(Step::Publish, 1000);
        assert_eq!(*seen.borrow(), [(Step::Compile, 0), (Step::Publish, 1000)]);
    }
}
