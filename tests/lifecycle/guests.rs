//! Guests other than the installed one: an installation whose initramfs starts with a script of the test's.

use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_tests::{World, install};

/// A copy of the installation's parts whose `/init` is `script`; busybox is `/busybox`, the agent is `/agent` and wants to
/// be started as `/init`.
///
/// Returns the directory to name by `BULKHEAD_LIB`.
pub(crate) fn starting_with(world: &World, script: &str) -> PathBuf {
    let lib = world.path().join("lib");
    let tree = world.path().join("initramfs");
    std::fs::create_dir_all(&lib).unwrap();
    std::fs::create_dir_all(&tree).unwrap();
    for part in ["vmm", "vmlinux", "manifest.json"] {
        std::os::unix::fs::symlink(install::asset(part), lib.join(part)).unwrap();
    }
    let mut archive = std::fs::read(install::asset("initramfs.cpio")).unwrap();
    program(&tree.join("agent"), &file_in(&archive, "init"));
    program(&tree.join("busybox"), &std::fs::read("/bin/busybox").unwrap());
    program(&tree.join("init"), format!("#!/busybox sh\n{script}\n").as_bytes());
    // The kernel unpacks one archive after the other, and a later file replaces an earlier one.
    archive.extend(packed(&tree));
    std::fs::write(lib.join("initramfs.cpio"), archive).unwrap();
    std::fs::remove_dir_all(&tree).unwrap();
    lib
}

fn program(path: &Path, contents: &[u8]) {
    std::fs::write(path, contents).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// The files of a directory as a cpio archive.
fn packed(directory: &Path) -> Vec<u8> {
    let pack = "find . -type f | /bin/busybox cpio -o -H newc";
    let output = Command::new("sh").args(["-ec", pack]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The contents of the last file called `wanted` in cpio archives that follow one another: 110 bytes of header, in which
/// field 6 is the file's size and field 11 that of its name, then name and contents, each padded to 4 bytes.
fn file_in(archives: &[u8], wanted: &str) -> Vec<u8> {
    let mut found = None;
    let mut at = 0;
    while let Some(header) = archives.get(at..at + 110) {
        if !header.starts_with(b"070701") {
            // Padding between two archives.
            at += 4;
            continue;
        }
        let field = |index: usize| {
            let digits = std::str::from_utf8(&header[6 + 8 * index..14 + 8 * index]).unwrap();
            usize::from_str_radix(digits, 16).unwrap()
        };
        let (size, name_size) = (field(6), field(11));
        let name = &archives[at + 110..at + 110 + name_size - 1];
        let contents = (at + 110 + name_size).next_multiple_of(4);
        if name == wanted.as_bytes() {
            found = Some(archives[contents..contents + size].to_vec());
        }
        at = (contents + size).next_multiple_of(4);
    }
    found.expect("the initramfs has the file")
}

mod on_both {
    use super::starting_with;
    use bulkhead_tests::{World, image};
    use rustix::process::Signal;

    #[test]
    fn a_guest_that_starts_the_agent_late_still_works() {
        let world = World::new();
        let lib = starting_with(&world, "/busybox sleep 1; /busybox mv /agent /init; exec /init");
        world.run([&image::busybox(), "echo", "late"]).variable("BULKHEAD_LIB", lib).output().exits(0).prints("late\n");
    }

    #[test]
    fn a_panic_at_boot_is_our_failure_with_the_consoles_last_lines() {
        let world = World::new();
        let lib = starting_with(&world, "echo about to fail; exit 7");
        let outcome = world.run([&image::busybox(), "true"]).variable("BULKHEAD_LIB", lib).output();
        outcome.fails_with(["Kernel panic", "Attempted to kill init"]);
    }

    #[test]
    fn a_panic_while_running_is_our_failure_with_the_consoles_last_lines() {
        let world = World::new();
        // 2: also when only a container is out of memory.
        let lib = starting_with(
            &world,
            "/busybox mkdir -p /proc; /busybox mount -t proc proc /proc; echo 2 >/proc/sys/vm/panic_on_oom; /busybox umount /proc; /busybox mv /agent /init; exec /init",
        );
        let outcome = world
            .run(["-m", "128m", &image::busybox(), "sh", "-c", "echo up; tail /dev/zero"])
            .variable("BULKHEAD_LIB", lib)
            .output();
        outcome.exits(125).prints("up\n").complains(["Kernel panic", "out of memory"]);
    }

    #[test]
    fn an_agent_that_never_answers_is_given_up_on() {
        let world = World::new();
        let lib = starting_with(&world, "while :; do /busybox sleep 1000; done");
        let outcome = world.run([&image::busybox(), "true"]).variable("BULKHEAD_LIB", lib).output();
        outcome.fails_with(["agent"]);
    }

    #[test]
    fn waiting_for_an_agent_can_be_interrupted() {
        let world = World::new();
        let lib = starting_with(&world, "while :; do /busybox sleep 1000; done");
        let running = world.run([&image::busybox(), "true"]).variable("BULKHEAD_LIB", lib).spawn();
        std::thread::sleep(std::time::Duration::from_secs(3));
        for _ in 0..3 {
            running.signal(Signal::INT);
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let outcome = running.wait();
        assert_ne!(outcome.status.code(), Some(0));
        assert!(outcome.elapsed < std::time::Duration::from_secs(15), "{outcome}");
    }

    #[test]
    fn a_guest_that_powers_off_is_our_failure() {
        let world = World::new();
        let lib = starting_with(&world, "/busybox reboot -f");
        world.run([&image::busybox(), "true"]).variable("BULKHEAD_LIB", lib).output().fails_with(["guest"]);
    }
}
