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
    let original = install::asset("initramfs.cpio");
    shell(&tree, &format!("/bin/busybox cpio -idm <'{}'", original.display()));
    std::fs::rename(tree.join("init"), tree.join("agent")).unwrap();
    std::fs::copy("/bin/busybox", tree.join("busybox")).unwrap();
    world.file("initramfs/init", format!("#!/busybox sh\n{script}\n"));
    let packed = lib.join("initramfs.cpio");
    shell(&tree, &format!("chmod 755 init && find . | /bin/busybox cpio -o -H newc >'{}'", packed.display()));
    std::fs::remove_dir_all(&tree).unwrap();
    lib
}

fn shell(directory: &Path, script: &str) {
    let output = Command::new("sh").args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
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
