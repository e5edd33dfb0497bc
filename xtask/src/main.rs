//! The developer's commands: everything from a fresh Debian machine with only cargo to a tested runtime.
//!
//! Every command brings in what it needs first ([`packages`]), prints one line per step with the time it took ([`step`])
//! and keeps what is expensive in a cache whose folders are named by a hash of what went into them ([`paths`]).

mod bench;
mod cargo;
mod check;
mod demo;
mod dist;
mod guest;
mod images;
mod lab;
mod packages;
mod paths;
mod process;
mod step;
mod test;

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
    /// Build everything, make an image from Debian packages, and run it in a VM of its own.
    Demo,
    /// Run every test: checks, unit tests, and the system tests on both accelerators.
    Test(test::TestArguments),
    /// Check formatting, lints, licences, dependency arrows and the documentation's paths.
    Check,
    /// Build the guest: kernel, agent, initramfs.
    Guest,
    /// Build everything and stage an installation in target/dist.
    Dist,
    /// Measure what a sandbox costs, and write it into docs/benchmarks.md.
    Bench(bench::BenchArguments),
    /// Run a command, or a shell, in a VM that has a real hardware-style KVM.
    Lab(lab::LabArguments),
    /// What the lab runs inside to keep its kernel as it is.
    #[command(hide = true)]
    LabHoldKvm,
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
        Command::Demo => demo::command(&paths),
        Command::Test(arguments) => test::command(&paths, &arguments),
        Command::Check => {
            let (_, failed) = check::run(&paths)?;
            failed.iter().for_each(|name| eprintln!("FAILED {name}"));
            Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Guest => {
            guest::describe(&guest::build(&paths)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Dist => {
            println!("{}", dist::build(&paths)?.prefix.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench(arguments) => bench::command(&paths, &arguments),
        Command::LabHoldKvm => lab::hold::command(),
        Command::Lab(arguments) => lab::command(&paths, arguments),
    }
}
