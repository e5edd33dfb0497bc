//! `guest-kernel`: builds the guest's kernel, or prints what would be built.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use guest_kernel::{Options, check, fragment, source};

/// Builds the Linux kernel that Bulkhead's microVMs boot.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build the kernel, or find it in the cache, and print its path
    Build(Build),
    /// Compare a .config with the fragments
    Check {
        /// The .config
        config: PathBuf,
    },
    /// Print the merged fragments as Kconfig reads them
    Fragments,
}

#[derive(Args)]
struct Build {
    /// Build cache [default: $XDG_CACHE_HOME/bulkhead or ~/.cache/bulkhead]
    #[arg(long, env = "BULKHEAD_CACHE")]
    cache: Option<PathBuf>,
    /// Kernel source tarball [default: Debian's linux-source-6.12, else kernel.org]
    #[arg(long, env = source::Given::VARIABLE)]
    source: Option<PathBuf>,
    /// SHA-256 of a source that is not one of the pinned ones
    #[arg(long, requires = "source")]
    sha256: Option<String>,
    /// Fragment on top of the built-in ones; may be repeated
    #[arg(long)]
    fragment: Vec<PathBuf>,
    /// Parallel compiler processes [default: one per CPU]
    #[arg(long, short)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("guest-kernel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked and returns what to print.
fn run(cli: Cli) -> anyhow::Result<String> {
    match cli.command {
        Action::Build(build) => {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            let kernel = guest_kernel::build(&Options {
                cache: build.cache.or_else(default_cache).context("neither BULKHEAD_CACHE nor HOME is set")?,
                source: build.source.map(|path| source::Given { path, sha256: build.sha256 }),
                extra_fragments: build.fragment,
                jobs: build.jobs.unwrap_or(cpus),
                progress: &guest_kernel::print_to_stderr,
            })?;
            Ok(format!("{}\n", kernel.vmlinux.display()))
        }
        Action::Check { config } => {
            let text = std::fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
            let violations = check::violations(&fragment::load(&[])?, &text);
            anyhow::ensure!(
                violations.is_empty(),
                "{} differs from the fragments:\n{}",
                config.display(),
                violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
            );
            Ok(String::new())
        }
        Action::Fragments => Ok(fragment::load(&[])?.to_kconfig()),
    }
}

fn default_cache() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache"))).map(|base| base.join("bulkhead"))
}
