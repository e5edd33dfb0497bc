//! What `sandbox run` is for: a command's output, from inside a VM of its own.

mod on_both {
    use bulkhead_tests::{World, image};

    #[test]
    fn prints_what_the_command_prints() {
        let world = World::new();
        world.run([&image::busybox(), "echo", "hello  world"]).output().exits(0).prints("hello  world\n");
    }

    #[test]
    fn keeps_stdout_and_stderr_apart() {
        let world = World::new();
        let outcome = world.run([&image::busybox(), "sh", "-c", "echo out; echo err >&2"]).output();
        outcome.exits(0).prints("out\n").complains(["err"]);
        assert!(!outcome.text().contains("err"), "{outcome}");
    }

    #[test]
    fn has_a_kernel_of_its_own() {
        let world = World::new();
        let outcome = world.run([&image::busybox(), "uname", "-r"]).output();
        let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        outcome.exits(0);
        assert_ne!(outcome.text(), host, "{outcome}");
    }

    #[test]
    fn everything_after_the_image_is_the_command() {
        let world = World::new();
        let arguments = [&image::busybox(), "echo", "--rm", "-e", "--", "--timeout=1", "", "a b", "$HOME"];
        world.run(arguments).output().exits(0).prints("--rm -e -- --timeout=1  a b $HOME\n");
    }

    #[test]
    fn runs_a_pipeline_in_the_debian_image() {
        let world = World::new();
        let script = "cat /etc/debian_version | cut -d. -f1; seq 1 100 | sort -rn | head -3 | tr '\\n' ' '";
        world.run([&image::debian(), "bash", "-c", script]).output().exits(0).prints("12\n100 99 98 ");
    }

    #[test]
    fn runs_python_in_the_debian_image() {
        let world = World::new();
        let program = "import os, sys, json; print(json.dumps({'pid': os.getpid(), 'sum': sum(range(1000))}), flush=True); sys.exit(3)";
        world
            .run([&image::debian(), "python3", "-c", program])
            .output()
            .exits(3)
            .prints("{\"pid\": 1, \"sum\": 499500}\n");
    }

    #[test]
    fn carries_binary_output_unchanged() {
        let world = World::new();
        let script = "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done";
        let outcome = world.run([&image::busybox(), "sh", "-c", script]).output();
        outcome.exits(0);
        let expected: Vec<u8> = (0..=255).collect();
        assert_eq!(outcome.stdout, expected);
    }

    #[test]
    fn carries_much_output_without_losing_a_byte() {
        let world = World::new();
        let outcome = world.run([&image::busybox(), "sh", "-c", "seq 1 300000"]).output();
        outcome.exits(0);
        let expected: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(outcome.stdout.len(), expected.len());
        assert!(outcome.stdout == expected.as_bytes(), "the bytes differ");
    }

    #[test]
    fn ends_when_nobody_reads_its_output() {
        let world = World::new();
        let under = format!("{} | head -c 20", "\"$0\" \"$@\"");
        let outcome = world.run([&image::busybox(), "yes"]).under("sh", ["-c", under.as_str()]).output();
        outcome.exits(0);
        assert_eq!(outcome.stdout, b"y\ny\ny\ny\ny\ny\ny\ny\ny\ny\n");
    }

    #[test]
    fn two_sandboxes_run_side_by_side() {
        let world = World::new();
        let script = "hostname; sleep 2";
        let first = world.run([&image::busybox(), "sh", "-c", script]).spawn();
        let second = world.run([&image::busybox(), "sh", "-c", script]).spawn();
        let (first, second) = (first.wait(), second.wait());
        first.exits(0);
        second.exits(0);
        assert_ne!(first.text(), second.text(), "two sandboxes have one host name");
    }

    #[test]
    fn the_clock_is_the_hosts() {
        let world = World::new();
        let outcome = world.run([&image::busybox(), "date", "+%s"]).output();
        let guest: u64 = outcome.text().trim().parse().unwrap();
        let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(host.abs_diff(guest) < 60, "guest {guest}, host {host}");
    }
}

mod on_emulated {
    use bulkhead_tests::{World, image};

    #[test]
    fn says_in_one_line_that_it_runs_emulated() {
        let world = World::new();
        // Taking an image in says what it does.
        world.sandbox(["pull", &image::busybox()]).output().exits(0);
        let outcome = world.run([&image::busybox(), "true"]).output();
        outcome.exits(0).prints("").complains(["emulat"]);
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
    }
}

mod on_kvm {
    use bulkhead_tests::{World, image};

    #[test]
    fn says_nothing_of_its_own() {
        let world = World::new();
        // Taking an image in says what it does.
        world.sandbox(["pull", &image::busybox()]).output().exits(0);
        let outcome = world.run([&image::busybox(), "true"]).output();
        outcome.exits(0).prints("");
        assert_eq!(outcome.stderr, "", "{outcome}");
    }

    #[test]
    fn auto_takes_kvm_where_it_works() {
        let world = World::new();
        // Taking an image in says what it does.
        world.sandbox(["pull", &image::busybox()]).output().exits(0);
        let outcome = world.sandbox(["run", "--accel", "auto", &image::busybox(), "echo", "hi"]).output();
        outcome.exits(0).prints("hi\n");
        assert_eq!(outcome.stderr, "", "{outcome}");
    }
}
