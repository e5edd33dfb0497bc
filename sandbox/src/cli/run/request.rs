//! One `sandbox run`, checked: everything that can be wrong without looking at the image or starting a VM.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use sandbox::image::{ImageConfig, ImageSource};
use sandbox::lifecycle::{ContainerConfig, ContainerFile, SandboxConfig, SharedPath};
use sandbox::resources::{CpuLimit, HostCapacity, MemoryLimit};
use sandbox::spec::{ContainerSpec, DEFAULT_PATH, Mount};
use sandbox::stdio::StreamSet;
use sandbox::terminal::TerminalSize;

use super::args::RunArgs;
use super::mounts::{self, MountRequest};
use crate::cli::values::{ENV_FILE_MAX_BYTES, EnvEntry, parse_env, parse_env_file};

/// What docker calls a terminal of unknown kind.
const TERM_DEFAULT: &str = "xterm";

/// A checked request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) args: RunArgs,
    pub(super) source: ImageSource,
    pub(super) cpus: CpuLimit,
    pub(super) memory: MemoryLimit,
    /// Entry `n` of the guest's volumes.
    pub(super) volumes: Vec<SharedPath>,
    command: Vec<String>,
    env: Vec<EnvEntry>,
    mounts: Vec<Mount>,
}

impl Request {
    pub(super) fn new(mut args: RunArgs) -> anyhow::Result<Self> {
        let host = HostCapacity::of_this_host();
        let cpus = CpuLimit::new(args.cpus, host).context("--cpus")?;
        let memory = MemoryLimit::new(args.memory, host).context("-m")?;
        let mut words = std::mem::take(&mut args.image_and_command).into_iter();
        let image = words.next().unwrap_or_default();
        let source = image.parse()?;
        let (volumes, mounts) = share(&args)?;
        let env = environment(&args)?;
        Ok(Self { source, cpus, memory, volumes, command: words.collect(), env, mounts, args })
    }

    /// Which streams the container's process has.
    pub(super) fn streams(&self) -> StreamSet {
        StreamSet { stdin: self.args.interactive, stdout: true, stderr: !self.args.tty }
    }

    /// The container in sandbox `id`, made from `image` of `layers` layers.
    pub(super) fn container(
        &self,
        id: &str,
        image: &ImageConfig,
        layers: usize,
        size: Option<TerminalSize>,
    ) -> anyhow::Result<ContainerConfig> {
        let hostname = self.args.hostname.clone().unwrap_or_else(|| id.to_owned());
        let spec = ContainerSpec {
            args: self.program(image)?,
            env: self.merged_env(image, &hostname),
            cwd: self.args.workdir.clone().unwrap_or_else(|| image.working_dir.clone()),
            terminal: self.args.tty.then_some(size),
            read_only: self.args.read_only,
            hostname: hostname.clone(),
            cpus: self.cpus,
            memory: self.memory,
            mounts: self.mounts.clone(),
        };
        Ok(ContainerConfig {
            id: id.to_owned(),
            spec_json: spec.to_json(),
            layers: (0..layers).collect(),
            read_only: self.args.read_only,
            user: self.args.user.clone().unwrap_or_else(|| image.user.clone()),
            streams: self.streams(),
            create_cwd: self.args.workdir.is_none(),
            files: network_files(&hostname),
        })
    }

    /// Program and arguments. A given entry point replaces the image's and drops its default command.
    fn program(&self, image: &ImageConfig) -> anyhow::Result<Vec<String>> {
        let (entrypoint, default_command) = match &self.args.entrypoint {
            Some(program) if program.is_empty() => (Vec::new(), &[][..]),
            Some(program) => (vec![program.clone()], &[][..]),
            None => (image.entrypoint.clone(), image.cmd.as_slice()),
        };
        let command = if self.command.is_empty() { default_command } else { &self.command };
        let program: Vec<String> = entrypoint.into_iter().chain(command.iter().cloned()).collect();
        if program.is_empty() {
            bail!("nothing to run: the image names no command; write one after the image");
        }
        Ok(program)
    }

    /// Defaults, then the image's, then the user's.
    fn merged_env(&self, image: &ImageConfig, hostname: &str) -> Vec<String> {
        let mut env = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
        if self.args.tty {
            env.push(format!("TERM={TERM_DEFAULT}"));
        }
        for entry in &image.env {
            let key = entry.split_once('=').map_or(entry.as_str(), |(key, _)| key).to_owned();
            set(&mut env, &key, Some(entry.clone()));
        }
        for EnvEntry { key, value } in &self.env {
            set(&mut env, key, value.as_ref().map(|value| format!("{key}={value}")));
        }
        env
    }
}

/// Replaces a variable in its place, appends a new one, or removes it.
fn set(env: &mut Vec<String>, key: &str, entry: Option<String>) {
    let place = env.iter().position(|known| known.split_once('=').is_some_and(|(known, _)| known == key));
    match (place, entry) {
        (Some(place), Some(entry)) => {
            if let Some(slot) = env.get_mut(place) {
                *slot = entry;
            }
        }
        (None, Some(entry)) => env.push(entry),
        (Some(place), None) => drop(env.remove(place)),
        (None, None) => {}
    }
}

/// Entries of the files first, then those of the command line.
fn environment(args: &RunArgs) -> anyhow::Result<Vec<EnvEntry>> {
    let mut env = Vec::new();
    for path in &args.env_file {
        let text =
            read_env_file(path).with_context(|| format!("cannot read the environment file {}", path.display()))?;
        let entries = parse_env_file(&text).map_err(anyhow::Error::msg);
        env.extend(entries.with_context(|| format!("environment file {}", path.display()))?);
    }
    for entry in &args.env {
        env.push(parse_env(entry).map_err(anyhow::Error::msg).context("-e")?);
    }
    Ok(env)
}

fn read_env_file(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(ENV_FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= ENV_FILE_MAX_BYTES, "it is larger than {ENV_FILE_MAX_BYTES} bytes");
    Ok(text)
}

/// The host paths to share, and the mounts of all kinds in the order they are to be made.
fn share(args: &RunArgs) -> anyhow::Result<(Vec<SharedPath>, Vec<Mount>)> {
    let asked = args.volume.iter().chain(&args.mount).chain(&args.tmpfs).cloned().collect();
    let mut volumes = Vec::new();
    let mut mounts = Vec::new();
    for request in mounts::order(asked)? {
        mounts.push(match request {
            MountRequest::Tmpfs { destination, options } => Mount::Tmpfs { destination, options },
            MountRequest::Bind { source, destination, read_only } => {
                let source: PathBuf = mounts::check_source(&source)?;
                let guest_path = SandboxConfig::volume_path(volumes.len());
                volumes.push(SharedPath { source, read_only });
                Mount::Bind { source: guest_path, destination, read_only }
            }
        });
    }
    Ok((volumes, mounts))
}

/// What a container without a network finds where programs look for names.
fn network_files(hostname: &str) -> Vec<ContainerFile> {
    let hosts = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    vec![
        ContainerFile { path: "/etc/hostname", contents: format!("{hostname}\n") },
        ContainerFile { path: "/etc/hosts", contents: hosts },
        ContainerFile { path: "/etc/resolv.conf", contents: String::new() },
    ]
}
