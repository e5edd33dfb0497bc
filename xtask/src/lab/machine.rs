//! The lab's QEMU and virtiofsd processes.

use std::ffi::OsString;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::kernel::LabKernel;
use crate::process;

/// Bytes of each log that an error shows.
const LOG_TAIL_BYTES: usize = 12 * 1024;
const CONSOLE_LOG: &str = "console.log";
/// The UNIX sockets that QEMU connects to, in the order of its `-chardev` options.
const PORTS: [&str; 4] = ["stdout", "stderr", "status", "terminal"];
/// How long QEMU may take to end after the guest's reboot.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// What a VM is made of.
pub(crate) struct MachineConfig<'a> {
    /// Kernel and modules.
    pub(crate) kernel: &'a LabKernel,
    /// Directory with `init.sh` and its files; sockets and logs go there too.
    pub(crate) directory: &'a Path,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// Virtual CPUs.
    pub(crate) cpus: u32,
}

/// A running VM; both processes die with it, and with us.
pub(crate) struct Machine {
    qemu: Process,
    _virtiofsd: Process,
    directory: PathBuf,
    /// The guest's virtio-serial ports.
    pub(crate) stdout: UnixStream,
    pub(crate) stderr: UnixStream,
    pub(crate) status: UnixStream,
    /// The virtio console that carries a shell's terminal.
    pub(crate) terminal: UnixStream,
}

impl Machine {
    /// Starts virtiofsd and QEMU.
    pub(crate) fn start(config: &MachineConfig<'_>) -> anyhow::Result<Self> {
        let mut listeners = Vec::new();
        for name in PORTS {
            let path = config.directory.join(format!("{name}.sock"));
            listeners.push(UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?);
        }
        let virtiofsd = Process(start_virtiofsd(config.directory)?);
        let mut qemu = Process(start_qemu(config)?);
        let mut streams = Vec::new();
        for listener in &listeners {
            match accept(listener, &mut qemu)? {
                Some(stream) => streams.push(stream),
                None => bail!(
                    "QEMU ended at once:
{}",
                    logs(config.directory)
                ),
            }
        }
        let [stdout, stderr, status, terminal] =
            streams.try_into().map_err(|_| anyhow::anyhow!("QEMU connected to too few of its ports"))?;
        Ok(Self {
            qemu,
            _virtiofsd: virtiofsd,
            directory: config.directory.to_path_buf(),
            stdout,
            stderr,
            status,
            terminal,
        })
    }

    /// Waits for QEMU to end, and returns what it, virtiofsd and the guest's console said last.
    pub(crate) fn finish(mut self) -> anyhow::Result<String> {
        let begun = Instant::now();
        while self.qemu.0.try_wait()?.is_none() && begun.elapsed() < END_TIMEOUT {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(logs(&self.directory))
    }
}

/// A child that is killed when it goes out of scope.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The connection of `qemu`, or `None` when it ended first.
fn accept(listener: &UnixListener, qemu: &mut Process) -> anyhow::Result<Option<UnixStream>> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(Some(stream));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot accept QEMU's connection"),
        }
        if qemu.0.try_wait()?.is_some() {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The end of every log there is.
fn logs(directory: &Path) -> String {
    let mut text = String::new();
    for name in ["qemu.log", "virtiofsd.log", CONSOLE_LOG] {
        let bytes = std::fs::read(directory.join(name)).unwrap_or_default();
        let tail = bytes.get(bytes.len().saturating_sub(LOG_TAIL_BYTES)..).unwrap_or_default();
        if !tail.is_empty() {
            text.push_str(&format!("[{name}]\n{}\n", String::from_utf8_lossy(tail).trim_end()));
        }
    }
    text
}

/// virtiofsd on the host's root; ends by itself when QEMU disconnects.
fn start_virtiofsd(directory: &Path) -> anyhow::Result<Child> {
    let daemon = Path::new("/usr/lib/qemu/virtiofsd");
    if !daemon.exists() {
        bail!("{} is missing; it comes with Debian 12's qemu-system-common (1:7.2)", daemon.display());
    }
    let socket = directory.join("fs.sock");
    let log = std::fs::File::create(directory.join("virtiofsd.log"))?;
    let child = process::tied_to_us(daemon)
        .arg(format!("--socket-path={}", socket.display()))
        // Its usual sandbox pivots into the source, which cannot be the root it already has.
        .args([
            "-o",
            "sandbox=chroot",
            "-o",
            "source=/",
            "-o",
            "cache=always",
            "-o",
            "xattr",
            "-o",
            "flock",
            "-o",
            "posix_lock",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .context("cannot start virtiofsd")?;
    let begun = Instant::now();
    while !socket.exists() {
        if begun.elapsed() > Duration::from_secs(10) {
            let log = std::fs::read_to_string(directory.join("virtiofsd.log")).unwrap_or_default();
            bail!("virtiofsd did not make its socket within 10 s:\n{log}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}

fn start_qemu(config: &MachineConfig<'_>) -> anyhow::Result<Child> {
    let log = std::fs::File::create(config.directory.join("qemu.log"))?;
    let mut command: Command = process::tied_to_us("qemu-system-x86_64");
    command.args(qemu_arguments(config));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().context("cannot start qemu-system-x86_64")
}

fn qemu_arguments(config: &MachineConfig<'_>) -> Vec<OsString> {
    let socket = |name: &str| config.directory.join(name).display().to_string();
    let memory = config.memory_mib;
    let cmdline = format!(
        "root=host rootfstype=virtiofs rw console=ttyS0 quiet panic=-1 mitigations=off no_timer_check \
         random.trust_cpu=on init={init} -- {lab} {modules}",
        init = config.directory.join("init.sh").display(),
        lab = config.directory.display(),
        modules = config.kernel.modules_root.display(),
    );
    let mut arguments: Vec<OsString> =
        ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"].map(Into::into).to_vec();
    let mut add = |option: &str, value: String| arguments.extend([option.into(), value.into()]);
    add("-machine", "q35,memory-backend=mem,usb=off,smm=off".to_owned());
    add("-object", format!("memory-backend-memfd,id=mem,size={memory}M,share=on"));
    add("-m", format!("{memory}M"));
    add("-smp", config.cpus.to_string());
    // Two guest CPUs on two host threads; `max` has SVM with nested paging.
    add("-accel", "tcg,thread=multi".to_owned());
    add("-cpu", "max".to_owned());
    add("-kernel", config.kernel.image.display().to_string());
    add("-append", cmdline);
    add("-serial", format!("file:{}", config.directory.join(CONSOLE_LOG).display()));
    add("-chardev", format!("socket,id=fs,path={}", socket("fs.sock")));
    add("-device", "vhost-user-fs-pci,chardev=fs,tag=host,queue-size=1024".to_owned());
    add("-device", "virtio-rng-pci".to_owned());
    add("-device", "virtio-serial-pci".to_owned());
    for name in ["stdout", "stderr", "status"] {
        add("-chardev", format!("socket,id={name},path={}", socket(&format!("{name}.sock"))));
        add("-device", format!("virtserialport,chardev={name},name={name}"));
    }
    add("-chardev", format!("socket,id=terminal,path={}", socket("terminal.sock")));
    add("-device", "virtconsole,chardev=terminal".to_owned());
    arguments
}
