use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use super::*;

fn root() -> (tempfile::TempDir, RuntimeRoot) {
    let dir = tempfile::tempdir().unwrap();
    let root = RuntimeRoot::open(&dir.path().join("run")).unwrap();
    (dir, root)
}

/// Leaves the directory behind, its lock free, as a SIGKILL of the owner does.
fn abandon(dir: RuntimeDir) -> PathBuf {
    let path = dir.path().to_owned();
    let copy = path.with_extension("copy");
    Command::new("cp").arg("-a").args([&path, &copy]).status().unwrap();
    drop(dir);
    std::fs::rename(copy, &path).unwrap();
    path
}

#[test]
fn a_live_directory_is_private_and_survives_a_sweep() {
    let (_tmp, root) = root();
    let dir = root.create(None).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dir.path()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(root.sweep().unwrap(), Swept::default());
    let path = dir.path().to_owned();
    assert!(path.exists());
    drop(dir);
    assert!(!path.exists());
}

#[test]
fn a_sweep_removes_what_a_dead_owner_left_and_ends_its_vmm() {
    let (_tmp, root) = root();
    let dir = root.create(None).unwrap();
    let mut vmm = Command::new("sleep").arg("100").spawn().unwrap();
    dir.record_vmm(&ProcessIdentity::of(vmm.id()).unwrap()).unwrap();
    let path = abandon(dir);
    assert_eq!(root.sweep().unwrap(), Swept { directories: 1, vmms: 1 });
    assert!(!path.exists());
    assert_eq!(vmm.wait().unwrap().signal(), Some(9));
}

#[test]
fn a_sweep_removes_half_made_directories() {
    let (_tmp, root) = root();
    let half = root.sandboxes().join("half");
    std::fs::create_dir(&half).unwrap();
    let torn = abandon(root.create(None).unwrap());
    std::fs::write(torn.join(VMM_FILE), "{\"pid\":").unwrap();
    assert_eq!(root.sweep().unwrap(), Swept { directories: 2, vmms: 0 });
    assert!(!half.exists() && !torn.exists());
}

#[test]
fn a_name_is_unique_among_live_sandboxes_only() {
    let (_tmp, root) = root();
    let name: SandboxName = "web".parse().unwrap();
    let first = root.create(Some(&name)).unwrap();
    let error = root.create(Some(&name)).unwrap_err();
    assert!(error.to_string().contains("\"web\"") && error.to_string().contains(first.id().as_str()), "{error}");
    let left = abandon(first);
    let second = root.create(Some(&name)).unwrap();
    assert!(left.exists(), "creating does not sweep");
    drop(second);
}

#[test]
fn sweeps_and_creations_at_once_leave_live_directories_alone() {
    let (_tmp, root) = root();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let dir = root.create(None).unwrap();
                    root.sweep().unwrap();
                    assert!(dir.path().join(LOCK_FILE).exists());
                }
            });
        }
    });
    assert_eq!(root.directories().unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn a_path_too_long_for_sockets_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = RuntimeRoot::open(&dir.path().join("x".repeat(90))).unwrap();
    let error = root.create(None).unwrap_err();
    assert!(matches!(error, RuntimeDirError::PathTooLong { .. }), "{error}");
}

#[test]
fn names_are_checked() {
    for good in ["a", "web-1", "A.b_c", "0"] {
        assert!(good.parse::<SandboxName>().is_ok(), "{good}");
    }
    for bad in ["", "-a", ".", "..", "a/b", "a b", "ä", &"x".repeat(64)] {
        assert!(bad.parse::<SandboxName>().is_err(), "{bad}");
    }
}
