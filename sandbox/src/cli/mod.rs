//! The command line: thin over the library. stdout carries results and the guest's output only, everything else is stderr.

mod context;
mod doctor;
mod format;
mod images;
mod progress;
mod run;
mod values;
mod version;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use self::format::Format;

/// Exit status when this command itself failed, as docker has it: below are a program's own, above the shell's.
const FAILURE: u8 = 125;

/// Run containers, each in a virtual machine of its own
#[derive(Debug, Parser)]
#[command(name = "sandbox", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a command in a new sandbox, and remove the sandbox when it ends
    Run(Box<run::RunArgs>),
    /// Fetch an image, so that a later `run` starts at once
    Pull(images::PullArgs),
    /// List the images that are stored here
    Images(images::ImagesArgs),
    /// Remove images
    Rmi(images::RmiArgs),
    /// Check what this host offers, which accelerator is taken and why, and how to mend what is missing
    Doctor(doctor::DoctorArgs),
    /// Show the versions of this command and of the guest
    Version(version::VersionArgs),
}

/// Runs the command to its exit status.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // One thread does everything: the work is waiting. Streams have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(dispatch(cli.command));
            // A thread that still reads a terminal's input must not hold the exit up.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(anyhow::Error::new(error).context("cannot start the event loop")),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(FAILURE)
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => run::run(*args).await,
        Command::Pull(args) => images::pull(args).await.map(|()| 0),
        Command::Images(args) => images::list(&args).map(|()| 0),
        Command::Rmi(args) => images::remove(&args).map(|()| 0),
        Command::Doctor(args) => doctor::doctor(&args).await,
        Command::Version(args) => version::version(&args).map(|()| 0),
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Help that was asked for is the result.
        return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) };
    }
    let text = error.render().to_string();
    complain(text.trim_end().strip_prefix("error: ").unwrap_or(&text));
    ExitCode::from(FAILURE)
}

/// The one place where a message of ours reaches the user. Parts of it may come from a guest or an image: what could
/// command a terminal is left out.
pub(crate) fn complain(message: &str) {
    let harmless: String = message.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    // Nothing is left to tell when stderr is closed.
    let _closed = std::io::Write::write_all(&mut std::io::stderr(), format!("sandbox: {harmless}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
