//! What a sandbox may leave behind on the host, and finding it.

use std::path::Path;
use std::time::{Duration, Instant};

/// The variable that marks every process started for one test; children inherit it.
pub const MARKER_VARIABLE: &str = "BULKHEAD_TEST_MARKER";

/// How long cleaning up may take after the last command has returned or was killed.
const CLEANING_TIME: Duration = Duration::from_secs(10);

/// A process of a test.
#[derive(Debug)]
pub struct Process {
    /// Its process id.
    pub pid: i32,
    /// Its command line, words separated by spaces.
    pub command_line: String,
}

/// Processes whose environment carries `marker`, zombies excepted: their parent has yet to look at them.
pub fn processes(marker: &str) -> Vec<Process> {
    let wanted = format!("{MARKER_VARIABLE}={marker}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that ends meanwhile cannot be read any more.
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes()) {
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(Process { pid, command_line: String::from_utf8_lossy(&words).replace('\0', " ") });
        }
    }
    found
}

/// Everything that is left, one thing a line.
pub(crate) fn find(marker: &str, directory: &Path, runtime: &Path, data: &Path) -> Vec<String> {
    let mut left: Vec<String> = processes(marker)
        .into_iter()
        .map(|process| format!("process {}: {}", process.pid, process.command_line))
        .collect();
    let sandboxes = runtime.join("sandboxes");
    left.extend(entries(&sandboxes).into_iter().map(|name| format!("{}/{name}", sandboxes.display())));
    left.extend(mounts(directory).into_iter().map(|mount| format!("mount {mount}")));
    left.extend(loop_devices(directory).into_iter().map(|device| format!("loop device {device}")));
    // Another test of this process may be filling the shared store.
    if data.starts_with(directory) {
        left.extend(unfinished(data).into_iter().map(|name| format!("unfinished {name}")));
    }
    left
}

/// Asks `find` again and again until it finds nothing or time is up.
pub(crate) fn wait_until_none(find: impl Fn() -> Vec<String>) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let left = find();
        if left.is_empty() || begun.elapsed() > CLEANING_TIME {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn entries(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn mounts(directory: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    let prefix = directory.display().to_string();
    table.lines().filter(|line| line.contains(&prefix)).map(str::to_owned).collect()
}

fn loop_devices(directory: &Path) -> Vec<String> {
    entries(Path::new("/sys/block"))
        .into_iter()
        .filter(|name| name.starts_with("loop"))
        .filter(|name| {
            std::fs::read_to_string(format!("/sys/block/{name}/loop/backing_file"))
                .is_ok_and(|file| Path::new(file.trim()).starts_with(directory))
        })
        .collect()
}

/// Half-made things in an image store: layers being unpacked. A download that was cut short stays, to be continued.
fn unfinished(data: &Path) -> Vec<String> {
    entries(&data.join("staging")).into_iter().map(|name| format!("{}/staging/{name}", data.display())).collect()
}
