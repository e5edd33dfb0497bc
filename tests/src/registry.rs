//! A real registry: Debian's `docker-registry` on a loopback port, filled by `skopeo`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// User of a registry that wants credentials.
pub const USER: &str = "tester";
/// Their password.
pub const PASSWORD: &str = "a secret";
/// `tester:` and the bcrypt hash of [`PASSWORD`].
const HTPASSWD: &str = "tester:$2b$05$Fq7yqCQqYVDS3.PMzAS5pun4UtbFvJcFou4T9zwl81OQURSdhA7fW\n";

/// A running registry; ended and emptied when dropped.
pub struct Registry {
    directory: TempDir,
    process: Child,
    address: SocketAddr,
    guarded: bool,
}

impl Registry {
    /// Starts one that anybody may read and write.
    pub fn open() -> Self {
        Self::start(false)
    }

    /// Starts one that wants [`USER`] and [`PASSWORD`].
    pub fn guarded() -> Self {
        Self::start(true)
    }

    fn start(guarded: bool) -> Self {
        let directory = tempfile::Builder::new().prefix("bh-registry-").tempdir().expect("a temporary directory");
        // The port is free again when the registry binds it; nobody else asks for ports of this machine by number.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port on loopback");
        let config = directory.path().join("config.yml");
        std::fs::write(&config, configuration(directory.path(), address, guarded)).expect("a file in a new directory");
        std::fs::write(directory.path().join("htpasswd"), HTPASSWD).expect("a file in a new directory");
        let log = std::fs::File::create(directory.path().join("log")).expect("a file in a new directory");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor more"))
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed: apt-get install docker-registry");
        let mut registry = Self { directory, process, address, guarded };
        registry.wait_until_it_listens();
        registry
    }

    fn wait_until_it_listens(&mut self) {
        let begun = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.process.try_wait().expect("it can be waited for");
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(ended.is_none(), "docker-registry ended with {ended:?}:\n{}", log());
            assert!(begun.elapsed() < Duration::from_secs(60), "docker-registry does not listen:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Pushes a docker archive as `NAME:TAG` and returns its reference, `127.0.0.1:PORT/NAME:TAG`.
    ///
    /// # Panics
    ///
    /// If `skopeo` fails.
    pub fn push(&self, archive: &Path, name_and_tag: &str) -> String {
        let reference = format!("{}/{name_and_tag}", self.address);
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]);
        if self.guarded {
            command.arg(format!("--dest-creds={USER}:{PASSWORD}"));
        }
        command.arg(format!("docker-archive:{}", archive.display())).arg(format!("docker://{reference}"));
        let output = command.stdin(Stdio::null()).output().expect("skopeo is installed: apt-get install skopeo");
        assert!(output.status.success(), "skopeo failed:\n{}", String::from_utf8_lossy(&output.stderr));
        reference
    }

    /// The digest of the manifest that a pushed reference names.
    ///
    /// # Panics
    ///
    /// If `skopeo` fails.
    pub fn digest(&self, reference: &str) -> String {
        let mut command = Command::new("skopeo");
        command.args(["inspect", "--tls-verify=false", "--format={{.Digest}}"]).arg(format!("docker://{reference}"));
        let output = command.stdin(Stdio::null()).output().expect("skopeo is installed: apt-get install skopeo");
        assert!(output.status.success(), "skopeo failed:\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Files of the registry's blobs, largest first: a test may spoil one.
    ///
    /// # Panics
    ///
    /// If the registry is empty.
    pub fn blobs(&self) -> Vec<PathBuf> {
        let root = self.directory.path().join("data/docker/registry/v2/blobs/sha256");
        let mut files = Vec::new();
        for prefix in std::fs::read_dir(&root).expect("a registry with blobs").flatten() {
            for blob in std::fs::read_dir(prefix.path()).expect("a directory of blobs").flatten() {
                files.push(blob.path().join("data"));
            }
        }
        files.sort_by_key(|file| std::cmp::Reverse(std::fs::metadata(file).map_or(0, |metadata| metadata.len())));
        files
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn configuration(directory: &Path, address: SocketAddr, guarded: bool) -> String {
    let data = directory.join("data");
    let mut text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  cache:\n    blobdescriptor: inmemory\nhttp:\n  addr: {address}\n",
        data.display()
    );
    if guarded {
        let file = directory.join("htpasswd");
        text.push_str(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display()));
    }
    text
}
