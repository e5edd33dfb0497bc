//! Runs the external programs the images are made with.

use std::process::{Command, Stdio};

use crate::Error;

/// Characters of stderr that go into an error.
const SHOWN: usize = 2000;

/// Runs a program to its end and returns its stdout. `package` is named if the program is not installed.
pub(super) fn run(command: &mut Command, package: &'static str) -> Result<Vec<u8>, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).env("LC_ALL", "C").output().map_err(|source| Error::MissingProgram {
        program: program.clone(),
        package,
        source,
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let from = stderr.char_indices().rev().nth(SHOWN).map_or(0, |(index, _)| index);
    let output_end = stderr.get(from..).unwrap_or_default().trim().to_owned();
    Err(Error::Program { program, status: output.status.to_string(), output: output_end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_returned_and_failure_explained() {
        assert_eq!(run(Command::new("echo").arg("x"), "coreutils").unwrap(), b"x\n");
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"]), "dash").unwrap_err();
        assert_eq!(error.to_string(), "sh failed (exit status: 3): why");
        let error = run(&mut Command::new("/no/such/program"), "some-package").unwrap_err();
        assert!(error.to_string().contains("apt-get install some-package"), "{error}");
    }
}
