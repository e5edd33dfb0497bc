//! Each flag of `sandbox run`, as a docker user means it.

mod on_both {
    use bulkhead_tests::{World, image};

    #[test]
    fn env_sets_and_passes_variables() {
        let world = World::new();
        let script = "echo \"$A|$B|$C\"; env | grep -c ^NOT_PASSED= || true";
        let outcome = world
            .run(["-e", "A=1 2", "--env", "B", "-e", "C=", &image::busybox(), "sh", "-c", script])
            .variable("B", "from here")
            .variable("NOT_PASSED", "x")
            .output();
        outcome.exits(0).prints("1 2|from here|\n0\n");
    }

    #[test]
    fn env_file_is_read_and_env_wins_over_it() {
        let world = World::new();
        let file = world.file("env", "# a comment\nA=from file\nB=\"quoted\"\n\n");
        let file = file.display().to_string();
        let outcome =
            world.run(["--env-file", &file, "-e", "A=flag", &image::busybox(), "sh", "-c", "echo $A $B"]).output();
        outcome.exits(0).prints("flag \"quoted\"\n");
    }

    #[test]
    fn an_environment_has_path_home_and_host_name() {
        let world = World::new();
        let outcome = world
            .run([&image::busybox(), "sh", "-c", "echo $HOME; echo $PATH; [ \"$HOSTNAME\" = $(hostname) ]"])
            .output();
        outcome.exits(0);
        let text = outcome.text();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("/root"), "{outcome}");
        assert!(lines.next().is_some_and(|path| path.contains("/bin")), "{outcome}");
    }

    #[test]
    fn workdir_is_where_the_command_starts() {
        let world = World::new();
        world.run(["-w", "/etc", &image::busybox(), "pwd"]).output().exits(0).prints("/etc\n");
    }

    #[test]
    fn user_can_be_a_name_a_number_or_both_with_a_group() {
        let world = World::new();
        let id = |user: &str| world.run(["-u", user, &image::busybox(), "sh", "-c", "id -u; id -g"]).output();
        id("demo").exits(0).prints("1000\n1000\n");
        id("1234:5678").exits(0).prints("1234\n5678\n");
        id("nobody:tty").exits(0).prints("65534\n5\n");
        id("4242").exits(0).prints("4242\n0\n");
    }

    #[test]
    fn entrypoint_replaces_the_images() {
        let world = World::new();
        let outcome = world.run(["--entrypoint", "/bin/echo", &image::busybox(), "sh", "-c", "x"]).output();
        outcome.exits(0).prints("sh -c x\n");
    }

    #[test]
    fn read_only_root_refuses_writes_but_not_those_to_dev() {
        let world = World::new();
        let script = "touch /new 2>/dev/null || echo refused; echo x >/dev/null && echo taken";
        world.run(["--read-only", &image::busybox(), "sh", "-c", script]).output().exits(0).prints("refused\ntaken\n");
    }

    #[test]
    fn a_writable_root_forgets_what_was_written() {
        let world = World::new();
        let script = "test -e /new && echo still there; echo x >/new; echo y >>/etc/passwd; rm /bin/vi; cat /new";
        for _ in 0..2 {
            world.run([&image::busybox(), "sh", "-c", script]).output().exits(0).prints("x\n");
        }
    }

    #[test]
    fn cpus_and_memory_are_the_guests() {
        let world = World::new();
        let script = "nproc; awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo";
        let outcome = world.run(["--cpus", "2", "-m", "300m", &image::busybox(), "sh", "-c", script]).output();
        outcome.exits(0);
        let text = outcome.text();
        let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers[0], 2, "{outcome}");
        assert!((200..=700).contains(&numbers[1]), "{outcome}");
    }

    #[test]
    fn name_is_the_containers_host_name_and_unique() {
        let world = World::new();
        let mut first = world.run(["--name", "alpha", &image::busybox(), "sh", "-c", "echo up; sleep 1000"]).spawn();
        first.wait_for_stdout("up\n");
        let second = world.run(["--name", "alpha", &image::busybox(), "true"]).output();
        second.fails_with(["alpha"]);
        first.signal(rustix::process::Signal::KILL);
        first.wait();
        world.assert_nothing_left();
        world.run(["--name", "alpha", "--rm", &image::busybox(), "true"]).output().exits(0);
    }

    #[test]
    fn network_none_leaves_loopback_alone() {
        let world = World::new();
        let outcome = world
            .run([
                "--network",
                "none",
                &image::busybox(),
                "sh",
                "-c",
                "ls /sys/class/net; ping -c1 -W5 127.0.0.1 >/dev/null && echo up",
            ])
            .output();
        outcome.exits(0).prints("lo\nup\n");
    }

    #[test]
    fn a_kernel_can_be_given() {
        let world = World::new();
        let kernel = world.path().join("my-kernel");
        std::fs::copy(bulkhead_tests::install::asset("vmlinux"), &kernel).unwrap();
        let kernel = kernel.display().to_string();
        world.run(["--kernel", &kernel, &image::busybox(), "echo", "booted"]).output().exits(0).prints("booted\n");
    }
}
