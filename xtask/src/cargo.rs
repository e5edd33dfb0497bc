//! Calling cargo from a command that cargo itself started.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use crate::paths::Paths;
use crate::process;

/// `cargo` in the workspace's root, without what the outer cargo set for this process alone.
pub(crate) fn command(paths: &Paths) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(&paths.root);
    // Build scripts that look at these would otherwise run again, here and in the next plain cargo.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Builds test executables without running them: their names and paths.
pub(crate) fn test_executables(paths: &Paths, arguments: &[&str]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut build = command(paths);
    build.args(["test", "--no-run", "--message-format=json-render-diagnostics"]).args(arguments);
    build.stderr(std::process::Stdio::inherit());
    let output = process::output(&mut build)?;
    let mut found = Vec::new();
    for line in output.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).context("a message of cargo")?;
        if let (Some(target), Some(executable)) = (message.target, message.executable) {
            found.push((target.name, executable));
        }
    }
    Ok(found)
}

/// The part of cargo's JSON messages that names an executable.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}
