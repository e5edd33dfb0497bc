//! The harness itself: what a sandbox leaves behind would be found.

mod on_machine {
    use bulkhead_tests::World;
    use rustix::process::{Pid, Signal, kill_process};

    #[test]
    fn a_process_that_is_left_is_found() {
        let world = World::new();
        let leaving = ["-c", "sleep 1234 >/dev/null 2>&1 </dev/null &"];
        world.sandbox(["version"]).under("sh", leaving).output().exits(0);
        assert!(world.leftovers().join("").contains("sleep 1234"), "{:?}", world.leftovers());
        for pid in world.processes("sleep 1234") {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
        world.assert_nothing_left();
    }

    #[test]
    fn a_runtime_directory_that_is_left_is_found() {
        let world = World::new();
        let left = world.file("run/sandboxes/0123/lock", "");
        assert!(world.leftovers().join("").contains("sandboxes/0123"), "{:?}", world.leftovers());
        std::fs::remove_dir_all(left.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_mount_that_is_left_is_found() {
        let world = World::new();
        let point = world.path().join("point");
        std::fs::create_dir(&point).unwrap();
        let mount = |program: &str, arguments: &[&str]| {
            let status = std::process::Command::new(program).args(arguments).arg(&point).status().unwrap();
            assert!(status.success(), "{program}: {status}");
        };
        mount("mount", &["-t", "tmpfs", "tmpfs"]);
        let found = world.leftovers().join("");
        mount("umount", &[]);
        assert!(found.contains("mount"), "{found}");
    }

    #[test]
    fn a_half_made_layer_that_is_left_is_found() {
        let world = World::with_own_store();
        let left = world.file("data/staging/0123/fs", "");
        assert!(world.leftovers().join("").contains("staging/0123"), "{:?}", world.leftovers());
        std::fs::remove_dir_all(left.parent().unwrap()).unwrap();
    }
}
