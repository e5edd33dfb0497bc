//! The options of `sandbox run`, as a docker user types them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use sandbox::accel::AcceleratorChoice;
use sandbox::image::PullPolicy;
use sandbox::runtime_dir::SandboxName;

use super::mounts::{MountRequest, parse_mount, parse_tmpfs, parse_volume};
use crate::cli::values::{parse_duration, parse_size};

/// How long a guest may take to boot where nothing else is asked for: an emulated one on a busy host is slow.
const START_TIMEOUT_DEFAULT: &str = "60s";

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Keep stdin open and pass it on; without it the container's stdin is empty
    #[arg(short, long)]
    pub(super) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// Set an environment variable; KEY alone takes its value from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(super) env: Vec<String>,
    /// Set the environment variables of a file, one a line
    #[arg(long, value_name = "FILE")]
    pub(super) env_file: Vec<PathBuf>,
    /// Working directory in the container; it must exist
    #[arg(short, long, value_name = "DIR", value_parser = parse_absolute)]
    pub(super) workdir: Option<String>,
    /// User and group in the container, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(super) user: Option<String>,
    /// Show a file or directory of this host in the container
    #[arg(short, long, value_name = "SRC:DST[:ro]", value_parser = parse_volume)]
    pub(super) volume: Vec<MountRequest>,
    /// Mount something, spelled out: type=bind|tmpfs,src=…,dst=…[,ro]
    #[arg(long, value_name = "SPEC", value_parser = parse_mount)]
    pub(super) mount: Vec<MountRequest>,
    /// Mount memory at DST
    #[arg(long, value_name = "DST[:OPTIONS]", value_parser = parse_tmpfs)]
    pub(super) tmpfs: Vec<MountRequest>,
    /// Name of the sandbox, unique among those that run
    #[arg(long)]
    pub(super) name: Option<SandboxName>,
    /// Remove the sandbox when it ends; a foreground sandbox always is
    #[arg(long)]
    pub(super) rm: bool,
    /// Program to run instead of the image's; empty for none
    #[arg(long, value_name = "PROGRAM")]
    pub(super) entrypoint: Option<String>,
    /// Refuse writes to the container's root file system
    #[arg(long)]
    pub(super) read_only: bool,
    /// Host name in the container; the sandbox's id if not given
    #[arg(long, value_name = "NAME", value_parser = parse_hostname)]
    pub(super) hostname: Option<String>,
    /// CPUs, such as 1.5
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub(super) cpus: f64,
    /// Memory of the container, such as 512m or 2g; its VM has a little more
    #[arg(short, long, value_name = "SIZE", default_value = "512m", value_parser = parse_size)]
    pub(super) memory: u64,
    /// Network; only `none` (loopback alone) is there yet
    #[arg(long, value_name = "NETWORK", default_value = "none", value_parser = parse_network)]
    pub(super) network: String,
    /// End the container after this time, with exit status 124
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) timeout: Option<Duration>,
    /// How long the guest may take to boot
    #[arg(long, value_name = "TIME", default_value = START_TIMEOUT_DEFAULT, value_parser = parse_duration)]
    pub(super) start_timeout: Duration,
    /// Guest kernel to boot, an uncompressed ELF vmlinux
    #[arg(long, value_name = "FILE")]
    pub(super) kernel: Option<PathBuf>,
    /// What runs the guest: hardware, emulation, or whichever works
    #[arg(long, value_enum, default_value_t)]
    pub(super) accel: AccelArgument,
    /// When to ask the registry for the image
    #[arg(long, value_enum, default_value_t)]
    pub(super) pull: PullArgument,
    /// Show no progress and no notices, only errors
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Show on stderr how long each phase took
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "table")]
    pub(super) timings: Option<crate::cli::Format>,
    /// Image (reference, `oci:DIR[:TAG]` or `docker-archive:FILE`) and the command; all after IMAGE is the container's
    #[arg(value_names = ["IMAGE", "COMMAND"], required = true, num_args = 1.., trailing_var_arg = true)]
    pub(super) image_and_command: Vec<String>,
}

/// `--accel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccelArgument {
    /// Hardware where it works, else emulation
    #[default]
    Auto,
    /// /dev/kvm
    Kvm,
    /// QEMU's TCG
    Emulated,
}

impl From<AccelArgument> for AcceleratorChoice {
    fn from(argument: AccelArgument) -> Self {
        match argument {
            AccelArgument::Auto => Self::Auto,
            AccelArgument::Kvm => Self::Kvm,
            AccelArgument::Emulated => Self::Emulated,
        }
    }
}

/// `--pull`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullArgument {
    /// If the image is not stored here
    #[default]
    Missing,
    /// Before every run
    Always,
    /// Not at all
    Never,
}

impl From<PullArgument> for PullPolicy {
    fn from(argument: PullArgument) -> Self {
        match argument {
            PullArgument::Missing => Self::Missing,
            PullArgument::Always => Self::Always,
            PullArgument::Never => Self::Never,
        }
    }
}

fn parse_absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("it is not an absolute path".to_owned()) }
}

fn parse_hostname(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= 63 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("a host name has 1 to 63 letters, digits, `-` and `.`".to_owned())
    }
}

fn parse_network(text: &str) -> Result<String, String> {
    if text == "none" {
        return Ok(text.to_owned());
    }
    Err("sandboxes have no network yet: only `none` (loopback alone) is supported".to_owned())
}
