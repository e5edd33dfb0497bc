//! `cargo xtask bench`: measurements that are written into docs/benchmarks.md, with their budgets beside them.

mod trace;

use std::process::ExitCode;

use clap::Subcommand;

use crate::paths::Paths;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    which: Which,
}

#[derive(Subcommand)]
enum Which {
    /// What it costs to boot a sandbox: VM exits, memory, time.
    Boot,
}

/// `cargo xtask bench`.
pub(crate) fn command(_paths: &Paths, arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    match arguments.which {
        Which::Boot => {
            anyhow::ensure!(trace::is_available(), "KVM's events cannot be recorded here");
            let recording = trace::Recording::start()?;
            recording.mark("end")?;
            println!("{:?}", recording.finish()?.until_mark("end")?);
            Ok(ExitCode::SUCCESS)
        }
    }
}
