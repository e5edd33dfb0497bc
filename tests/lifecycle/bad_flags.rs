//! Flags with values that cannot be: each is refused with the value in the message, and nothing is left behind.

mod on_machine {
    use bulkhead_tests::{World, image};

    #[test]
    fn memory_below_the_minimum_is_refused() {
        let world = World::new();
        for size in ["1m", "0", "100k"] {
            world.run(["-m", size, &image::busybox(), "true"]).output().fails_with(["memory"]);
        }
    }

    #[test]
    fn memory_above_the_hosts_is_refused() {
        let world = World::new();
        world.run(["-m", "4096g", &image::busybox(), "true"]).output().fails_with(["memory"]);
    }

    #[test]
    fn cpus_that_cannot_be_are_refused() {
        let world = World::new();
        for count in ["0", "-1", "33", "1000000", "many"] {
            world.run(["--cpus", count, &image::busybox(), "true"]).output().fails_with([count]);
        }
    }

    #[test]
    fn sizes_and_times_that_are_none_are_refused() {
        let world = World::new();
        world.run(["-m", "a lot", &image::busybox(), "true"]).output().fails_with(["a lot"]);
        world.run(["--timeout", "soon", &image::busybox(), "true"]).output().fails_with(["soon"]);
        world.run(["--timeout", "0", &image::busybox(), "true"]).output().fails_with(["0"]);
    }

    #[test]
    fn networks_other_than_none_are_refused() {
        let world = World::new();
        for network in ["bridge", "host", "my-net"] {
            world.run(["--network", network, &image::busybox(), "true"]).output().fails_with([network, "none"]);
        }
    }

    #[test]
    fn an_unknown_flag_is_named() {
        let world = World::new();
        world.run(["--no-such-flag", &image::busybox(), "true"]).output().fails_with(["--no-such-flag"]);
        world.sandbox(["no-such-command"]).output().fails_with(["no-such-command"]);
    }

    #[test]
    fn a_missing_image_argument_is_explained() {
        let world = World::new();
        world.run(Vec::<String>::new()).output().fails_with(["IMAGE"]);
    }

    #[test]
    fn names_and_volumes_that_are_none_are_refused() {
        let world = World::new();
        world.run(["--name", "../../etc", &image::busybox(), "true"]).output().fails_with(["../../etc"]);
        world.run(["-v", "/tmp:relative", &image::busybox(), "true"]).output().fails_with(["relative"]);
        world.run(["--mount", "type=swamp,target=/x", &image::busybox(), "true"]).output().fails_with(["swamp"]);
        world.run(["--env-file", "/no/such/file", &image::busybox(), "true"]).output().fails_with(["/no/such/file"]);
    }
}

mod on_both {
    use bulkhead_tests::{World, image};

    #[test]
    fn a_workdir_that_does_not_exist_is_refused() {
        let world = World::new();
        world.run(["-w", "/no/such/directory", &image::busybox(), "true"]).output().fails_with(["/no/such/directory"]);
        world.run(["-w", "/etc/passwd", &image::busybox(), "true"]).output().fails_with(["/etc/passwd"]);
    }

    #[test]
    fn a_user_that_is_not_in_passwd_is_refused() {
        let world = World::new();
        world.run(["-u", "nosuchuser", &image::busybox(), "true"]).output().fails_with(["nosuchuser"]);
        world.run(["-u", "root:nosuchgroup", &image::busybox(), "true"]).output().fails_with(["nosuchgroup"]);
    }
}
