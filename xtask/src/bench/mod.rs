//! `cargo xtask bench`: measurements that are written into docs/benchmarks.md, with their budgets beside them.
//!
//! ```text
//!  bench boot ──┬── this machine: sandbox run against the bare kernel, emulated        (machine)
//!               ├── the lab: `bench measure-kvm` ── boots, memory, work ── kvm.json    (in_lab)
//!               └── tables ──> docs/benchmarks.md                                      (report)
//! ```

mod idle;
mod in_lab;
mod live;
mod machine;
mod memory;
mod report;
mod results;
mod table;
mod trace;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;

use self::live::Installation;
use crate::lab::LabRun;
use crate::paths::Paths;
use crate::step::step;
use crate::{dist, images, lab, packages};

/// The document, and its part that is written here.
const DOCUMENT: &str = "docs/benchmarks.md";
const SECTION: &str = "bench boot";

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    which: Which,
}

#[derive(Subcommand)]
enum Which {
    /// What it costs to boot a sandbox and to let it work: VM exits, memory, time.
    Boot {
        /// Measure this installation, as `cargo xtask dist` stages it, instead of building one.
        #[arg(long, value_name = "DIR")]
        prefix: Option<PathBuf>,
    },
    /// The part of `boot` that runs in the lab.
    #[command(hide = true)]
    MeasureKvm {
        /// Prefix of the installation.
        #[arg(long)]
        prefix: PathBuf,
        /// Image with busybox.
        #[arg(long)]
        image: String,
        /// Guest image whose init sleeps.
        #[arg(long)]
        idle_initramfs: PathBuf,
        /// Where the results go, as JSON.
        #[arg(long)]
        out: PathBuf,
    },
}

/// `cargo xtask bench`.
pub(crate) fn command(paths: &Paths, arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    match &arguments.which {
        Which::Boot { prefix } => boot(paths, prefix.as_deref())?,
        Which::MeasureKvm { prefix, image, idle_initramfs, out } => measure_kvm(prefix, image, idle_initramfs, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn boot(paths: &Paths, prefix: Option<&Path>) -> anyhow::Result<()> {
    packages::ensure(packages::EMULATED)?;
    lab::prepare(paths)?;
    let program = own_copy(paths)?;
    let prefix = match prefix {
        Some(prefix) => std::fs::canonicalize(prefix).with_context(|| prefix.display().to_string())?,
        None => dist::build(paths)?.prefix,
    };
    let image = images::demo(paths)?.reference();
    let idle_initramfs = idle::initramfs(paths)?;
    let state = tempfile::tempdir()?;
    let installation = Installation { prefix: &prefix, state: state.path(), image: &image };
    let emulated = step("measure on this machine, emulated", || machine::measure(&installation, &idle_initramfs))?;
    let kvm = step("measure in the lab, KVM", || in_the_lab(paths, &program, &installation, &idle_initramfs))?;
    let bytes = |name: &str| std::fs::metadata(prefix.join("lib/bulkhead").join(name)).map(|metadata| metadata.len());
    let sizes = report::Sizes { kernel_bytes: bytes("vmlinux")?, initramfs_bytes: bytes("initramfs.cpio")? };
    let tables = report::render(&kvm, &emulated, sizes);
    println!("{tables}");
    let document = paths.root.join(DOCUMENT);
    let text = std::fs::read_to_string(&document).with_context(|| document.display().to_string())?;
    let Some(text) = table::replace_section(&text, SECTION, &tables) else {
        bail!("{DOCUMENT} has no lines `<!-- begin {SECTION} -->` and `<!-- end {SECTION} -->`")
    };
    std::fs::write(&document, text).with_context(|| document.display().to_string())
}

/// This program where no build replaces it while it works.
fn own_copy(paths: &Paths) -> anyhow::Result<PathBuf> {
    let copy = paths.target.join("bench/xtask");
    std::fs::create_dir_all(paths.target.join("bench"))?;
    std::fs::copy("/proc/self/exe", &copy).with_context(|| copy.display().to_string())?;
    Ok(copy)
}

/// Runs `measure-kvm` of `program` in the lab.
fn in_the_lab(
    paths: &Paths,
    program: &Path,
    on: &Installation<'_>,
    idle_initramfs: &Path,
) -> anyhow::Result<results::Kvm> {
    let out = paths.target.join("bench/kvm.json");
    let text = |path: &Path| path.display().to_string();
    let options = [
        ("--prefix", text(on.prefix)),
        ("--image", on.image.to_owned()),
        ("--idle-initramfs", text(idle_initramfs)),
        ("--out", text(&out)),
    ];
    let mut command = vec![text(program), "bench".to_owned(), "measure-kvm".to_owned()];
    command.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    let status = lab::execute(paths, &LabRun::new(paths, command))?;
    anyhow::ensure!(status == 0, "the measurements in the lab ended with {status}");
    serde_json::from_slice(&std::fs::read(&out)?).with_context(|| out.display().to_string())
}

fn measure_kvm(prefix: &Path, image: &str, idle_initramfs: &Path, out: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(trace::is_available(), "KVM's events cannot be recorded here: this command runs in the lab");
    let state = tempfile::tempdir()?;
    let installation = Installation { prefix, state: state.path(), image };
    let results = in_lab::Lab { installation, idle_initramfs }.measure()?;
    std::fs::write(out, serde_json::to_vec_pretty(&results)?).with_context(|| out.display().to_string())
}
