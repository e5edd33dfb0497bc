//! One test's surroundings: directories of its own, and the check that nothing is left when it ends.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use bulkhead_protocols::vm::Accelerator;
use tempfile::TempDir;

use crate::install;
use crate::leftovers;
use crate::running::Invocation;

/// Directories for the `sandbox` processes of one test.
pub struct World {
    directory: TempDir,
    data: PathBuf,
    marker: String,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// Surroundings with a runtime directory of their own and the image store that all tests share.
    pub fn new() -> Self {
        Self::with_data(shared_data())
    }

    /// Surroundings with an image store of their own, empty: for tests that look at it or count in it.
    pub fn with_own_store() -> Self {
        let mut world = Self::with_data(PathBuf::new());
        world.data = world.path().join("data");
        world
    }

    fn with_data(data: PathBuf) -> Self {
        // Short, because socket paths below it have to fit into 108 bytes.
        let directory = tempfile::Builder::new().prefix("bh-").tempdir().expect("a temporary directory");
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos();
        let marker = format!("{}-{stamp}", std::process::id());
        let world = Self { directory, data, marker };
        std::fs::create_dir(world.runtime_directory()).expect("a directory in a new directory");
        copy_probes(&probes(), &world.runtime_directory());
        world
    }

    /// This test's directory; it may put files there.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the sandboxes of this test keep their host state.
    pub fn runtime_directory(&self) -> PathBuf {
        self.path().join("run")
    }

    /// The image store.
    pub fn data_directory(&self) -> &Path {
        &self.data
    }

    /// Writes a file into the test's directory and returns its path.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a parent")).expect("its directory");
        std::fs::write(&path, contents).expect("a file in the test's directory");
        path
    }

    /// `sandbox ARGUMENTS`.
    pub fn sandbox<S: AsRef<str>>(&self, arguments: impl IntoIterator<Item = S>) -> Invocation {
        Invocation::new(install::sandbox())
            .arguments(arguments)
            .variable("BULKHEAD_RUN", self.runtime_directory())
            .variable("BULKHEAD_DATA", &self.data)
            .variable(leftovers::MARKER_VARIABLE, &self.marker)
    }

    /// `sandbox run --accel <the run's accelerator> ARGUMENTS`.
    pub fn run<S: AsRef<str>>(&self, arguments: impl IntoIterator<Item = S>) -> Invocation {
        self.run_on(install::accelerator(), arguments)
    }

    /// `sandbox run --accel ACCELERATOR ARGUMENTS`.
    pub fn run_on<S: AsRef<str>>(
        &self,
        accelerator: Accelerator,
        arguments: impl IntoIterator<Item = S>,
    ) -> Invocation {
        self.sandbox(["run", "--accel", &accelerator.to_string()]).arguments(arguments)
    }

    /// What is left of this test's sandboxes right now, one thing a line; empty when all is gone.
    pub fn leftovers(&self) -> Vec<String> {
        leftovers::find(&self.marker, self.path(), &self.runtime_directory(), &self.data)
    }

    /// Pids of this test's processes, by a part of their command line.
    pub fn processes(&self, part: &str) -> Vec<i32> {
        leftovers::processes(&self.marker)
            .into_iter()
            .filter(|process| process.command_line.contains(part))
            .map(|process| process.pid)
            .collect()
    }

    /// Waits until nothing is left.
    ///
    /// # Panics
    ///
    /// When something is still there after the time that cleaning up may take.
    pub fn assert_nothing_left(&self) {
        let left = leftovers::wait_until_none(|| self.leftovers());
        assert!(left.is_empty(), "left behind:\n  {}", left.join("\n  "));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // A second panic would abort the test process and hide the first.
        if !std::thread::panicking() {
            self.assert_nothing_left();
            copy_probes(&self.runtime_directory(), &probes());
        }
    }
}

/// Where the answers of accelerator probes go from one test to the next, so that not every test probes again. An answer
/// names everything it depends on, so that a test on another `/dev` does not believe it.
fn probes() -> PathBuf {
    let directory = shared_data().with_extension("probes");
    std::fs::create_dir_all(&directory).expect("a directory beside the image store");
    directory
}

fn copy_probes(from: &Path, to: &Path) {
    for name in ["probe-kvm.json", "probe-emulated.json"] {
        // Under another name first: a test that starts at the same moment reads all of it or nothing.
        let partial = to.join(format!("{name}.{:?}", std::thread::current().id()));
        if !to.join(name).exists() && std::fs::copy(from.join(name), &partial).is_ok() {
            std::fs::rename(&partial, to.join(name)).expect("a file just written");
        }
    }
}

/// The image store that the tests of one process share, so that each image is unpacked once.
fn shared_data() -> PathBuf {
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    DATA.get_or_init(|| match std::env::var_os("BULKHEAD_TEST_DATA") {
        Some(directory) => directory.into(),
        None => std::env::temp_dir().join("bulkhead-test-data"),
    })
    .clone()
}
