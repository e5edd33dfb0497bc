//! From a configuration to a guest whose agent answers.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_protocols::vm::{Accelerator, Caching, DiskConfig, ShareConfig, ShareEntry, VmConfig, VsockConfig};
use bulkhead_protocols::wire::{GUEST_CID, LAYERS_TAG, SCRATCH_SERIAL, SHARES_DIR, VOLUMES_TAG};

use super::error::{ConsoleTail, GuestEnd, SandboxError};
use super::{CONSOLE_TAIL_BYTES, EXIT_GRACE, Sandbox};
use crate::agent::{AgentClient, AgentError};
use crate::control::ControlClient;
use crate::paths::Assets;
use crate::ready::{NotReady, ReadyListener};
use crate::resources::{CpuLimit, MemoryLimit};
use crate::runtime_dir::{RuntimeDir, RuntimeRoot, SandboxName};
use crate::timings::Timings;
use crate::vmm_process::VmmProcess;

/// Bytes of console output that a vmm keeps.
const CONSOLE_BYTES: u32 = 64 * 1024;

/// A sandbox to be started.
#[derive(Debug)]
pub struct SandboxConfig {
    /// Unique among live sandboxes, if given.
    pub name: Option<SandboxName>,
    /// Decided before; see [`crate::accel`].
    pub accelerator: Accelerator,
    /// What the VM is made of.
    pub assets: Assets,
    /// vCPUs follow from it.
    pub cpus: CpuLimit,
    /// The VM's memory follows from it.
    pub memory: MemoryLimit,
    /// Image layers, bottom first: directories that do not change while the sandbox lives. Entry `n` of the guest's layers.
    pub layers: Vec<PathBuf>,
    /// Host files and directories. Entry `n` of the guest's volumes.
    pub volumes: Vec<SharedPath>,
    /// The formatted disk that takes writes; see [`crate::scratch`].
    pub scratch: OwnedFd,
    /// How long the guest may take until its agent answers.
    pub start_timeout: Duration,
}

/// A host path that a guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPath {
    /// Absolute path of a directory or regular file.
    pub source: PathBuf,
    /// Refuse writes, on the host's side.
    pub read_only: bool,
}

impl SandboxConfig {
    /// Where the guest finds layer `index`.
    pub fn layer_path(index: usize) -> String {
        format!("{SHARES_DIR}/{LAYERS_TAG}/{index}")
    }

    /// Where the guest finds volume `index`.
    pub fn volume_path(index: usize) -> String {
        format!("{SHARES_DIR}/{VOLUMES_TAG}/{index}")
    }

    fn shares(&self) -> Vec<ShareConfig> {
        let layers = self.layers.iter().map(|layer| (layer.clone(), true));
        let volumes = self.volumes.iter().map(|volume| (volume.source.clone(), volume.read_only));
        let shares = [
            share(LAYERS_TAG, Caching::Immutable, layers.collect()),
            share(VOLUMES_TAG, Caching::Live, volumes.collect()),
        ];
        shares.into_iter().filter(|share| !share.entries.is_empty()).collect()
    }

    fn vm_config(&self, files: &Files) -> VmConfig {
        VmConfig {
            accelerator: self.accelerator,
            kernel: self.assets.kernel.clone(),
            initramfs: self.assets.initramfs.clone(),
            cmdline_extra: String::new(),
            vcpus: self.cpus.vcpus(),
            memory_mib: self.memory.vm_mib(),
            huge_pages: true,
            vsock: VsockConfig { guest_cid: GUEST_CID, uds: files.vsock.clone() },
            shares: self.shares(),
            disks: vec![DiskConfig {
                path: format!("/proc/self/fd/{}", self.scratch.as_raw_fd()).into(),
                read_only: false,
                serial: SCRATCH_SERIAL.to_owned(),
            }],
            control_socket: files.control.clone(),
            console_bytes: CONSOLE_BYTES,
            runtime_dir: files.dir.clone(),
        }
    }
}

fn share(tag: &str, caching: Caching, sources: Vec<(PathBuf, bool)>) -> ShareConfig {
    let entries = sources.into_iter().enumerate();
    let entries = entries.map(|(index, (source, read_only))| ShareEntry { name: index.to_string(), source, read_only });
    ShareConfig { tag: tag.to_owned(), caching, entries: entries.collect() }
}

/// The files of a runtime directory that a VM uses.
struct Files {
    dir: PathBuf,
    config: PathBuf,
    control: PathBuf,
    vsock: PathBuf,
    log: PathBuf,
}

impl Files {
    fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            config: dir.join("vm.json"),
            control: dir.join("control.sock"),
            vsock: dir.join("vsock.sock"),
            log: dir.join("vmm.log"),
        }
    }
}

impl Sandbox {
    /// Starts a VM and returns when its agent has answered. If the future is dropped, the VM ends and nothing is left.
    ///
    /// # Errors
    /// Anything that kept the guest from being ready; nothing is left then.
    pub async fn start(root: &RuntimeRoot, config: SandboxConfig, timings: &mut Timings) -> Result<Self, SandboxError> {
        let runtime_dir = root.create(config.name.as_ref())?;
        let files = Files::new(runtime_dir.path());
        let json = serde_json::to_vec_pretty(&config.vm_config(&files)).map_err(SandboxError::Config)?;
        runtime_dir.write("vm.json", &json)?;
        let ready = ReadyListener::bind(&files.vsock).map_err(SandboxError::Listen)?;
        let start_timeout = config.start_timeout;
        let writes_to_host = config.volumes.iter().any(|volume| !volume.read_only);
        let vmm = VmmProcess::spawn(&config.assets.vmm, &files.config, &files.log, vec![config.scratch])?;
        if let Some(identity) = vmm.identity() {
            runtime_dir.record_vmm(identity)?;
        }
        timings.mark("start vmm");
        let control = ControlClient::new(&files.control);
        if let Err(not_ready) = ready.wait(&vmm, start_timeout).await {
            return Err(explain(not_ready, start_timeout, &control, &runtime_dir).await);
        }
        timings.mark("boot guest");
        let greeted = async {
            let agent = AgentClient::connect(&files.vsock).await?;
            let hello = agent.hello().await?;
            Ok((agent, hello))
        };
        let greeted: Result<_, AgentError> = greeted.await;
        let (agent, hello) = match greeted {
            Ok(greeted) => greeted,
            Err(error) if error.is_broken() => return Err(explain_broken(error, &vmm, &runtime_dir).await),
            Err(error) => return Err(error.into()),
        };
        timings.mark("greet agent");
        Ok(Self { agent, vmm, control, vsock: files.vsock, hello, writes_to_host, runtime_dir })
    }
}

async fn explain(
    not_ready: NotReady,
    timeout: Duration,
    control: &ControlClient,
    runtime_dir: &RuntimeDir,
) -> SandboxError {
    match not_ready {
        NotReady::VmmExited(exit) if exit.refused() => SandboxError::Refused(exit),
        NotReady::VmmExited(exit) => SandboxError::GuestEnded(GuestEnd::read(exit, runtime_dir)),
        NotReady::TimedOut => SandboxError::StartTimedOut { timeout, console: console_now(control).await },
        NotReady::Unexpected(report) => SandboxError::UnexpectedReport { report, console: console_now(control).await },
    }
}

/// The guest may have died right after its report; then that is the error.
async fn explain_broken(error: AgentError, vmm: &VmmProcess, runtime_dir: &RuntimeDir) -> SandboxError {
    match tokio::time::timeout(EXIT_GRACE, vmm.exit()).await {
        Ok(exit) => SandboxError::GuestEnded(GuestEnd::read(exit, runtime_dir)),
        Err(_) => error.into(),
    }
}

/// The console of a VM that still runs; empty if the vmm does not answer, since the error at hand matters more.
async fn console_now(control: &ControlClient) -> ConsoleTail {
    let text = control.console_tail(CONSOLE_TAIL_BYTES).await.unwrap_or_default();
    ConsoleTail::from_bytes(text.as_bytes())
}
