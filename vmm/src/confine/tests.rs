//! Confinement of a thread, seen from inside it. These tests need root, as the vmm does.

use std::fs;
use std::path::Path;

use bulkhead_protocols::vm::Caching;

use super::*;
use crate::config::Entry;

/// Runs `inside` on a thread that is confined to two shares: `layers` with a directory and a file, and `volumes`.
fn confined<T: Send + 'static>(inside: impl FnOnce(&Path) -> T + Send + 'static) -> T {
    let host = tempfile::tempdir().unwrap();
    let runtime_dir = host.path().join("run");
    for directory in ["run", "layer", "volume"] {
        fs::create_dir(host.path().join(directory)).unwrap();
    }
    fs::write(host.path().join("layer/in-layer"), b"layer").unwrap();
    fs::write(host.path().join("single"), b"single").unwrap();
    let entry = |name: &str, source: &str, read_only| Entry {
        name: name.to_owned(),
        source: host.path().join(source),
        read_only,
    };
    let shares = vec![
        Share {
            tag: "layers".to_owned(),
            caching: Caching::Immutable,
            entries: vec![entry("0", "layer", true), entry("1", "single", true)],
        },
        Share {
            tag: "volumes".to_owned(),
            caching: Caching::Live,
            entries: vec![entry("0", "volume", false), entry("1", "volume", true)],
        },
    ];
    let result = std::thread::spawn(move || {
        enter(&shares, &runtime_dir).unwrap();
        inside(&runtime_dir)
    })
    .join()
    .unwrap();
    assert_eq!(fs::read_dir(host.path().join("run/root")).unwrap().count(), 0, "nothing shows on the host");
    result
}

#[test]
fn only_the_shares_are_in_sight() {
    let mut names = confined(|runtime_dir| {
        let top = runtime_dir.components().nth(1).unwrap().as_os_str().to_owned();
        let names = fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| *name != top).collect::<Vec<_>>()
    });
    names.sort();
    assert_eq!(names, ["proc", "shares"]);
}

#[test]
fn entries_are_directories_and_files() {
    let (in_layer, single) = confined(|_| {
        (fs::read(share_root("layers").join("0/in-layer")).unwrap(), fs::read(share_root("layers").join("1")).unwrap())
    });
    assert_eq!((in_layer.as_slice(), single.as_slice()), (b"layer".as_slice(), b"single".as_slice()));
}

#[test]
fn read_only_entries_cannot_be_written() {
    confined(|runtime_dir| {
        let write = |path: &Path| fs::write(path, b"x").map_err(|error| error.raw_os_error());
        assert_eq!(write(&share_root("layers").join("0/new")), Err(Some(libc::EROFS)));
        assert_eq!(write(&share_root("volumes").join("1/new")), Err(Some(libc::EROFS)));
        assert_eq!(write(Path::new("/new")), Err(Some(libc::EROFS)));
        assert_eq!(write(&share_root("volumes").join("0/new")), Ok(()));
        assert_eq!(write(&runtime_dir.join("console")), Ok(()));
    });
}

#[test]
fn capabilities_are_gone_for_good() {
    use rustix::thread::{CapabilitySet, capabilities, no_new_privs};
    let (kept, no_new_privs) = confined(|_| (capabilities(None).unwrap(), no_new_privs().unwrap()));
    assert!(!kept.permitted.intersects(CapabilitySet::SYS_PTRACE | CapabilitySet::MKNOD));
    assert!(kept.inheritable.is_empty());
    assert!(no_new_privs);
}

#[test]
fn an_overlay_whiteout_is_the_only_device_that_can_be_made() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let made = confined(|_| {
        [makedev(1, 3), 0].map(|number| {
            mknodat(CWD, share_root("volumes").join("0/d"), FileType::CharacterDevice, Mode::RUSR, number)
        })
    });
    assert_eq!(made, [Err(rustix::io::Errno::PERM), Ok(())]);
}

#[test]
fn no_path_leads_out() {
    use std::os::unix::fs::MetadataExt;
    confined(|_| {
        let identity = |path: &str| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).unwrap();
        assert_eq!(identity("/"), identity("/../../.."));
        let mut names: Vec<_> = fs::read_dir("/proc/self").unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["fd", "mountinfo"], "/proc/self/task leads to threads outside");
    });
}

#[test]
fn a_missing_source_is_named() {
    let host = tempfile::tempdir().unwrap();
    let share = Share {
        tag: "volumes".to_owned(),
        caching: Caching::Live,
        entries: vec![Entry { name: "0".to_owned(), source: host.path().join("absent"), read_only: false }],
    };
    let runtime_dir = host.path().to_owned();
    let error = std::thread::spawn(move || enter(&[share], &runtime_dir).unwrap_err()).join().unwrap();
    assert!(error.to_string().contains("absent for the share \"volumes\""), "{error}");
}
