//! `-v` and `--mount`: directories and files of the host in the container.

mod on_both {
    use bulkhead_tests::{World, image};

    #[test]
    fn a_directory_is_shared_both_ways() {
        let world = World::new();
        world.file("shared/in", "from the host\n");
        let volume = format!("{}:/data", world.path().join("shared").display());
        let script = "cat /data/in; echo from the guest >/data/out; mkdir /data/d; mv /data/in /data/d/moved; chmod 640 /data/out";
        world.run(["-v", &volume, &image::busybox(), "sh", "-c", script]).output().exits(0).prints("from the host\n");
        let shared = world.path().join("shared");
        assert_eq!(std::fs::read_to_string(shared.join("out")).unwrap(), "from the guest\n");
        assert_eq!(std::fs::read_to_string(shared.join("d/moved")).unwrap(), "from the host\n");
        assert!(!shared.join("in").exists());
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(shared.join("out")).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn a_read_only_volume_refuses_writes() {
        let world = World::new();
        let file = world.file("shared/in", "kept\n");
        let volume = format!("{}:/data:ro", world.path().join("shared").display());
        let script = "cat /data/in; echo x >/data/in || echo refused; touch /data/new || echo refused; rm -f /data/in || echo refused";
        let outcome = world.run(["-v", &volume, &image::busybox(), "sh", "-c", script]).output();
        outcome.exits(0).prints("kept\nrefused\nrefused\nrefused\n");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "kept\n");
    }

    #[test]
    fn a_single_file_can_be_a_volume() {
        let world = World::new();
        let file = world.file("settings", "a=1\n");
        let volume = format!("{}:/etc/settings", file.display());
        world
            .run(["-v", &volume, &image::busybox(), "sh", "-c", "cat /etc/settings; echo b=2 >>/etc/settings"])
            .output()
            .exits(0)
            .prints("a=1\n");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "a=1\nb=2\n");
    }

    #[test]
    fn mount_says_the_same_in_words() {
        let world = World::new();
        world.file("shared/in", "x\n");
        let mount = format!("type=bind,source={},target=/data,readonly", world.path().join("shared").display());
        let script = "cat /data/in; touch /data/new || echo refused";
        world.run(["--mount", &mount, &image::busybox(), "sh", "-c", script]).output().exits(0).prints("x\nrefused\n");
    }

    #[test]
    fn two_volumes_stay_apart() {
        let world = World::new();
        world.file("a/name", "a\n");
        world.file("b/name", "b\n");
        let (a, b) = (
            format!("{}:/a", world.path().join("a").display()),
            format!("{}:/b/deep", world.path().join("b").display()),
        );
        world
            .run(["-v", &a, "-v", &b, &image::busybox(), "cat", "/a/name", "/b/deep/name"])
            .output()
            .exits(0)
            .prints("a\nb\n");
    }

    #[test]
    fn a_link_in_a_volume_does_not_lead_out_of_it() {
        let world = World::new();
        let secret = world.file("secret", "host secret\n");
        world.file("shared/in", "x\n");
        std::os::unix::fs::symlink(&secret, world.path().join("shared/absolute")).unwrap();
        std::os::unix::fs::symlink("../secret", world.path().join("shared/relative")).unwrap();
        let volume = format!("{}:/data", world.path().join("shared").display());
        let script = "cat /data/absolute /data/relative /data/../secret 2>/dev/null || echo nothing";
        world.run(["-v", &volume, &image::busybox(), "sh", "-c", script]).output().exits(0).prints("nothing\n");
    }

    #[test]
    fn what_the_host_changes_is_seen() {
        let world = World::new();
        let file = world.file("shared/state", "before\n");
        let volume = format!("{}:/data", world.path().join("shared").display());
        let script = "cat /data/state; while ! grep -q after /data/state; do sleep 0.1; done; cat /data/state";
        let mut running = world.run(["-v", &volume, &image::busybox(), "sh", "-c", script]).spawn();
        running.wait_for_stdout("before\n");
        std::fs::write(file, "after that\n").unwrap();
        running.wait().exits(0).prints("before\nafter that\n");
    }

    #[test]
    fn a_missing_source_is_refused() {
        let world = World::new();
        world
            .run(["-v", "/no/such/directory:/data", &image::busybox(), "true"])
            .output()
            .fails_with(["/no/such/directory"]);
        let mount = "type=bind,source=/no/such/file,target=/data";
        world.run(["--mount", mount, &image::busybox(), "true"]).output().fails_with(["/no/such/file"]);
    }
}
