//! Choosing an accelerator, and saying why: `sandbox doctor`, `--accel auto`, and hosts that lack something.

/// Runs a command in a mount namespace of its own whose `/dev` holds the usual nodes and what `extra` adds.
const OTHER_DEV: &str = r#"
set -e
new=$(mktemp -d)
mount -t tmpfs -o mode=755 tmpfs "$new"
for node in null zero full random urandom tty; do cp -a "/dev/$node" "$new/"; done
mkdir "$new/pts" "$new/shm"
mount --rbind /dev/pts "$new/pts"
mount --rbind /dev/shm "$new/shm"
ln -s pts/ptmx "$new/ptmx"
ln -s /proc/self/fd "$new/fd"
cd "$new"
EXTRA
cd /
mount --move "$new" /dev
rmdir "$new"
exec "$0" "$@"
"#;

fn with_dev(extra: &str) -> [String; 5] {
    let script = OTHER_DEV.replace("EXTRA", extra);
    ["--mount".to_owned(), "--".to_owned(), "sh".to_owned(), "-c".to_owned(), script]
}

mod on_machine {
    use super::with_dev;
    use bulkhead_tests::{World, image};

    const MISSING: &str = ":";
    const NOT_KVM: &str = "cp -a /dev/null kvm";
    const UNREADABLE: &str = "mknod -m 000 kvm c 10 232; chown 12345 kvm";

    fn report(world: &World, dev: &str) -> serde_json::Value {
        let outcome = world.sandbox(["doctor", "--json"]).under("unshare", with_dev(dev)).output();
        serde_json::from_slice(&outcome.stdout).unwrap_or_else(|error| panic!("{error}\n{outcome}"))
    }

    fn failed_kvm_checks(report: &serde_json::Value) -> String {
        let groups = report["groups"].as_array().unwrap();
        let kvm = groups.iter().find(|group| group["name"].as_str().unwrap().contains("kvm")).unwrap();
        let failed: Vec<_> = kvm["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
        assert!(!failed.is_empty(), "{report:#}");
        assert!(failed.iter().all(|check| check["fix"].is_string()), "a failed check has no fix: {report:#}");
        serde_json::to_string(&failed).unwrap()
    }

    #[test]
    fn doctor_prints_every_check_and_the_choice() {
        let world = World::new();
        let outcome = world.sandbox(["doctor"]).output();
        outcome.exits(0);
        for part in ["kvm", "emulated", "accelerator:", "why:", "mkfs.ext4", "guest kernel"] {
            assert!(outcome.text().contains(part), "no {part}\n{outcome}");
        }
    }

    #[test]
    fn a_missing_dev_kvm_is_named_and_emulation_chosen() {
        let world = World::new();
        let report = report(&world, MISSING);
        assert!(failed_kvm_checks(&report).contains("/dev/kvm"), "{report:#}");
        assert_eq!(report["accelerator"], "emulated");
        assert_eq!(report["usable"], true);
    }

    #[test]
    fn a_dev_kvm_that_is_something_else_is_unusable() {
        let world = World::new();
        let report = report(&world, NOT_KVM);
        assert!(!failed_kvm_checks(&report).is_empty());
        assert_eq!(report["accelerator"], "emulated");
    }

    #[test]
    fn kvm_is_refused_by_name_where_it_is_missing() {
        let world = World::new();
        let run = world.sandbox(["run", "--accel", "kvm", &image::busybox(), "true"]);
        run.under("unshare", with_dev(MISSING)).output().fails_with(["/dev/kvm"]);
    }

    #[test]
    fn kvm_is_refused_by_name_where_it_is_unusable() {
        let world = World::new();
        let run = world.sandbox(["run", "--accel", "kvm", &image::busybox(), "true"]);
        run.under("unshare", with_dev(NOT_KVM)).output().fails_with(["kvm"]);
    }

    #[test]
    fn kvm_is_refused_by_name_where_it_may_not_be_opened() {
        let world = World::new();
        let run = world.sandbox(["run", "--accel", "kvm", &image::busybox(), "true"]);
        // Root may open everything, unless it has given that up.
        let run = run.under("setpriv", ["--bounding-set", "-dac_override,-dac_read_search", "--"]);
        run.under("unshare", with_dev(UNREADABLE)).output().fails_with(["/dev/kvm", "permission"]);
    }

    #[test]
    fn auto_runs_emulated_where_kvm_is_missing() {
        let world = World::new();
        let run = world.sandbox(["run", "--accel", "auto", &image::busybox(), "echo", "hi"]);
        run.under("unshare", with_dev(MISSING)).output().exits(0).prints("hi\n").complains(["emulat"]);
    }

    #[test]
    fn a_missing_qemu_is_named_with_its_fix() {
        let world = World::new();
        let path = path_without(&world, "qemu-system");
        let run = world.sandbox(["run", "--accel", "emulated", &image::busybox(), "true"]).variable("PATH", &path);
        run.output().fails_with(["qemu-system-x86"]);
        let doctor = world.sandbox(["doctor"]).variable("PATH", &path).output();
        assert!(doctor.text().contains("apt-get install"), "{doctor}");
    }

    /// A directory of links to all programs but those whose name starts with `left_out`.
    fn path_without(world: &World, left_out: &str) -> std::path::PathBuf {
        let directory = world.path().join("bin");
        std::fs::create_dir(&directory).unwrap();
        for source in ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
            let Ok(entries) = std::fs::read_dir(source) else { continue };
            for entry in entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with(left_out)) {
                // The first directory of a PATH wins.
                let _ = std::os::unix::fs::symlink(entry.path(), directory.join(entry.file_name()));
            }
        }
        directory
    }

    #[test]
    fn version_is_printed_for_people_and_programs() {
        let world = World::new();
        let outcome = world.sandbox(["version"]).output();
        outcome.exits(0);
        assert!(outcome.text().contains("guest kernel"), "{outcome}");
        let outcome = world.sandbox(["version", "--format", "json"]).output();
        let versions: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
        assert!(versions["guest"]["kernel"]["version"].is_string(), "{versions:#}");
    }
}

mod on_kvm {
    use bulkhead_tests::World;

    #[test]
    fn doctor_chooses_kvm_where_it_runs_instructions() {
        let world = World::new();
        let outcome = world.sandbox(["doctor", "--json"]).output();
        outcome.exits(0);
        let report: serde_json::Value = serde_json::from_slice(&outcome.stdout).unwrap();
        assert_eq!(report["accelerator"], "kvm", "{report:#}");
    }
}
