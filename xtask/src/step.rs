//! Steps of a command: each is announced on stderr and closed with the time it took.

use std::time::{Duration, Instant};

/// Runs `work`, announced as `what`; the closing line has the elapsed time, or says that it failed.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eprintln!("==> {what}");
    let begun = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "done" } else { "FAILED" };
    eprintln!("    {verdict} in {}: {what}", elapsed(begun.elapsed()));
    result
}

/// A duration as a person reads it: `320 ms`, `4.2 s`, `5 min 20 s`.
pub(crate) fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else if duration < Duration::from_secs(60) {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        assert_eq!(elapsed(Duration::from_millis(320)), "320 ms");
        assert_eq!(elapsed(Duration::from_millis(4240)), "4.2 s");
        assert_eq!(elapsed(Duration::from_secs(320)), "5 min 20 s");
    }
}
