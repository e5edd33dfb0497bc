//! `rootfs-builder`: builds the guest's initramfs and the test images.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rootfs_builder::{Manifest, images};

/// Builds what Bulkhead's microVMs boot into, and images to run in them.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build the initramfs, and manifest.json beside it
    Initramfs {
        /// The static agent
        agent: PathBuf,
        /// The archive to write
        out: PathBuf,
        /// A kernel to name in the manifest, with the version that `uname -r` prints
        #[arg(long, num_args = 2, value_names = ["VERSION", "VMLINUX"])]
        kernel: Vec<String>,
    },
    /// Build the busybox image, or find it in the cache, and print its reference
    Demo(Cache),
    /// Build the Debian image, or find it in the cache, and print its reference
    Debian(Cache),
}

#[derive(clap::Args)]
struct Cache {
    /// Build cache [default: $XDG_CACHE_HOME/bulkhead or ~/.cache/bulkhead]
    #[arg(long, env = "BULKHEAD_CACHE")]
    cache: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rootfs-builder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked and returns what to print.
fn run(cli: Cli) -> anyhow::Result<String> {
    match cli.command {
        Action::Initramfs { agent, out, kernel } => {
            let mut manifest: Manifest = rootfs_builder::initramfs(&agent, &out)?;
            if let [version, vmlinux] = &kernel[..] {
                manifest.add_kernel(version, vmlinux.as_ref())?;
            }
            let folder = out.parent().context("the archive needs a folder")?;
            manifest.write(folder)?;
            Ok(format!("{} {} bytes", out.display(), manifest.initramfs.bytes))
        }
        Action::Demo(cache) => Ok(images::demo(&cache.folder()?)?.reference()),
        Action::Debian(cache) => Ok(images::debian(&cache.folder()?)?.reference()),
    }
}

impl Cache {
    fn folder(self) -> anyhow::Result<PathBuf> {
        let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        let default = || base().map(|base| base.join("bulkhead"));
        self.cache.or_else(default).context("neither BULKHEAD_CACHE nor HOME is set")
    }
}
