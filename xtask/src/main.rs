//! The developer's commands: everything from a fresh Debian machine with only cargo to a tested runtime.
//!
//! Every command brings in what it needs first ([`packages`]), prints one line per step with the time it took ([`step`])
//! and keeps what is expensive in a cache whose folders are named by a hash of what went into them ([`paths`]).

mod lab;
mod packages;
mod paths;
mod process;
mod step;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::paths::Paths;

/// Bulkhead's developer commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a command, or a shell, in a VM that has a real hardware-style KVM.
    Lab(lab::LabArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let paths = Paths::find()?;
    match command {
        Command::Lab(arguments) => lab::command(&paths, arguments),
    }
}
