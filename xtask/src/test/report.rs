//! Counting tests: what libtest prints is shown as it comes and read on the way.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::Context;

/// How a group of tests went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Names of those that passed.
    pub(crate) passed: Vec<String>,
    /// Names of those that failed.
    pub(crate) failed: Vec<String>,
    /// Names of those that did not run, each with the reason it gives.
    pub(crate) skipped: Vec<Skipped>,
}

/// A test that was not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// Its name.
    pub(crate) name: String,
    /// Why, in its own words.
    pub(crate) reason: String,
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
            self.passed.push(name.to_owned());
        } else if verdict.ends_with("FAILED") {
            self.failed.push(name.to_owned());
        } else if let Some(reason) = verdict.strip_prefix("ignored") {
            let reason = reason.trim_start_matches([',', ' ']);
            let reason = if reason.is_empty() { "it gives no reason" } else { reason };
            self.skipped.push(Skipped { name: name.to_owned(), reason: reason.to_owned() });
        }
    }

    /// Whether the test has said how it went.
    pub(crate) fn knows(&self, name: &str) -> bool {
        let skipped = self.skipped.iter().map(|skipped| &skipped.name);
        self.passed.iter().chain(&self.failed).chain(skipped).any(|known| known == name)
    }

    /// Adds what another run of other tests has brought.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed.extend(other.passed);
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }
}

/// Runs a program that prints like libtest.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<(Tally, ExitStatus)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start it")?;
    let stdout = child.stdout.take().context("its stdout is not a pipe")?;
    let tally = follow(BufReader::new(stdout), &mut std::io::stdout())?;
    Ok((tally, child.wait()?))
}

/// Reads libtest's output to its end, showing each line as it comes.
fn follow(mut output: impl BufRead, shown: &mut impl Write) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        shown.write_all(&line)?;
        tally.read(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    Ok(tally)
}

/// Prints what was skipped and what failed, a line for each part, and the total as the last line.
pub(crate) fn print(parts: &[(&str, Tally)]) -> ExitCode {
    println!();
    for (part, tally) in parts {
        for Skipped { name, reason } in &tally.skipped {
            println!("skipped ({part}): {name}: {reason}");
        }
    }
    for (part, tally) in parts {
        tally.failed.iter().for_each(|name| println!("FAILED ({part}): {name}"));
    }
    for (part, tally) in parts {
        println!("{part}: {}", counts(tally.passed.len(), tally.failed.len(), tally.skipped.len()));
    }
    let sum = |count: fn(&Tally) -> usize| parts.iter().map(|(_, tally)| count(tally)).sum();
    let (passed, failed): (usize, usize) = (sum(|tally| tally.passed.len()), sum(|tally| tally.failed.len()));
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
        assert_eq!(tally.passed, ["a::one", "a::two"]);
        assert_eq!(tally.failed, ["a::three"]);
        let skipped: Vec<_> =
            tally.skipped.iter().map(|skipped| format!("{}: {}", skipped.name, skipped.reason)).collect();
        assert_eq!(skipped, ["a::four: needs two hosts", "a::five: it gives no reason"]);
        assert!(tally.knows("a::five") && !tally.knows("a::six"));
    }

    #[test]
    fn output_is_shown_as_it_is_and_read_to_its_end() {
        let output = b"running 1 test\n\xff\ntest a ... ok\ntest b ... FAILED";
        let mut shown = Vec::new();
        let tally = follow(&output[..], &mut shown).unwrap();
        assert_eq!((tally.passed.len(), tally.failed.len()), (1, 1));
        assert_eq!(shown, output);
    }
}
