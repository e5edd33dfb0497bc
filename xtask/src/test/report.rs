//! Counting tests: what libtest prints is shown as it comes and read on the way.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;

/// How a group of tests went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many passed.
    pub(crate) passed: usize,
    /// Names of those that failed.
    pub(crate) failed: Vec<String>,
    /// Names of those that did not run, each with the reason it gives.
    pub(crate) skipped: Vec<String>,
}

impl Tally {
    /// Reads one line of libtest's output: `test NAME ... ok`, `... FAILED` or `... ignored, REASON`.
    fn read(&mut self, line: &str) {
        let Some((name, verdict)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) else {
            return;
        };
        // `should_panic` tests carry a remark after their name; a test's own output may precede the verdict.
        let name = name.split(" - should panic").next().unwrap_or(name);
        if verdict == "ok" || verdict.ends_with(" ok") {
            self.passed += 1;
        } else if verdict.ends_with("FAILED") {
            self.failed.push(name.to_owned());
        } else if let Some(reason) = verdict.strip_prefix("ignored") {
            let reason = reason.trim_start_matches([',', ' ']);
            let reason = if reason.is_empty() { "it gives no reason" } else { reason };
            self.skipped.push(format!("{name}: {reason}"));
        }
    }
}

/// Runs a program that prints like libtest. One that fails without naming a failed test counts as one failure, `what`.
pub(crate) fn run(command: &mut Command, what: &str) -> anyhow::Result<Tally> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start it")?;
    let stdout = child.stdout.take().context("its stdout is not a pipe")?;
    let mut tally = Tally::default();
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        std::io::stdout().write_all(&line)?;
        tally.read(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    let status = child.wait()?;
    if !status.success() && tally.failed.is_empty() {
        tally.failed.push(format!("{what}: ended with {status} without saying which test failed"));
    }
    Ok(tally)
}

/// Prints what was skipped and what failed, a line for each part, and the total as the last line.
pub(crate) fn print(parts: &[(&str, Tally)]) -> ExitCode {
    println!();
    for (part, tally) in parts {
        tally.skipped.iter().for_each(|name| println!("skipped ({part}): {name}"));
    }
    for (part, tally) in parts {
        tally.failed.iter().for_each(|name| println!("FAILED ({part}): {name}"));
    }
    for (part, tally) in parts {
        println!("{part}: {}", counts(tally.passed, tally.failed.len(), tally.skipped.len()));
    }
    let sum = |count: fn(&Tally) -> usize| parts.iter().map(|(_, tally)| count(tally)).sum();
    let (passed, failed): (usize, usize) = (sum(|tally| tally.passed), sum(|tally| tally.failed.len()));
    println!("{}", counts(passed, failed, sum(|tally| tally.skipped.len())));
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn counts(passed: usize, failed: usize, skipped: usize) -> String {
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_of_libtest_is_read() {
        let mut tally = Tally::default();
        for line in [
            "running 5 tests",
            "test a::one ... ok",
            "test a::two - should panic ... ok",
            "test a::three ... FAILED",
            "test a::four ... ignored, needs two hosts",
            "test a::five ... ignored",
            "test result: FAILED. 2 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            tally.read(line);
        }
        let skipped = ["a::four: needs two hosts", "a::five: it gives no reason"].map(str::to_owned).to_vec();
        assert_eq!(tally, Tally { passed: 2, failed: vec!["a::three".to_owned()], skipped });
    }

    #[test]
    fn a_crash_counts_as_a_failure() {
        let tally = run(Command::new("sh").args(["-c", "echo 'test a ... ok'; exit 101"]), "crashing").unwrap();
        assert_eq!((tally.passed, tally.failed.len()), (1, 1));
    }
}
