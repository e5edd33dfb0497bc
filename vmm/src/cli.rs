//! The command line.

use std::io::Write as _;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use bulkhead_protocols::control::ProbeReport;
use bulkhead_protocols::vm::Accelerator;
use clap::{Parser, Subcommand, ValueEnum};

use crate::{emulated, kvm, run};

/// Runs one microVM for a sandbox. Started by the `sandbox` library, not by hand.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot the guest a configuration describes, and stay until it ends.
    Run {
        /// JSON configuration of the VM.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Inherited descriptor, the read end of a pipe: when its other end closes, the VM and its runtime directory go.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
        lifeline_fd: Option<RawFd>,
    },
    /// Find out whether an accelerator can run a guest here; prints a JSON report.
    Probe {
        /// Which accelerator.
        #[arg(long)]
        accelerator: AcceleratorArgument,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AcceleratorArgument {
    Kvm,
    Emulated,
}

/// Runs the program to its exit status.
pub(crate) fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { config, lifeline_fd } => run::main(&config, lifeline_fd),
        Command::Probe { accelerator } => {
            let accelerator = match accelerator {
                AcceleratorArgument::Kvm => Accelerator::Kvm,
                AcceleratorArgument::Emulated => Accelerator::Emulated,
            };
            print_report(&probe(accelerator))
        }
    }
}

fn probe(accelerator: Accelerator) -> ProbeReport {
    match accelerator {
        Accelerator::Kvm => kvm::probe::probe(),
        Accelerator::Emulated => emulated::probe(),
    }
}

/// Prints the report; the exit status says whether that succeeded, the report whether the accelerator is usable.
fn print_report(report: &ProbeReport) -> ExitCode {
    let printed = serde_json::to_string(report)
        .map_err(std::io::Error::from)
        .and_then(|json| writeln!(std::io::stdout(), "{json}"));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmm: cannot print the report: {error}");
            ExitCode::FAILURE
        }
    }
}
