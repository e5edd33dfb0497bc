//! Exit statuses: the program's own, and those that say what happened to it.

mod on_both {
    use std::time::Duration;

    use bulkhead_tests::{World, image};

    fn shell(script: &str, status: i32) {
        let world = World::new();
        world.run([&image::busybox(), "sh", "-c", script]).output().exits(status);
    }

    #[test]
    fn is_the_programs() {
        for status in [0, 1, 42, 255] {
            shell(&format!("exit {status}"), status);
        }
    }

    #[test]
    fn is_128_and_the_signal_that_killed_it() {
        let world = World::new();
        // PID 1 of a namespace does not die of a signal it sends itself; its child does.
        let by_child = world.run([&image::busybox(), "sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]).output();
        by_child.exits(143);
        let itself = world.run([&image::debian(), "python3", "-c", "import ctypes; ctypes.string_at(0)"]).output();
        itself.exits(139);
    }

    #[test]
    fn is_127_for_a_command_that_is_not_found() {
        let world = World::new();
        let outcome = world.run([&image::busybox(), "no-such-command", "x"]).output();
        outcome.exits(127).prints("").complains(["no-such-command", "not found"]);
        world.run([&image::busybox(), "/no/such/path"]).output().exits(127).complains(["/no/such/path"]);
    }

    #[test]
    fn is_126_for_what_cannot_be_executed() {
        let world = World::new();
        world.run([&image::busybox(), "/etc/passwd"]).output().exits(126).prints("").complains(["/etc/passwd"]);
        world.run([&image::busybox(), "/etc"]).output().exits(126).prints("").complains(["/etc"]);
    }

    #[test]
    fn is_124_when_time_is_up() {
        let world = World::new();
        let outcome = world.run(["--timeout", "3s", &image::busybox(), "sh", "-c", "echo begun; sleep 1000"]).output();
        outcome.exits(124).complains(["3"]);
        assert!(outcome.elapsed < Duration::from_secs(60), "{outcome}");
    }

    #[test]
    fn is_the_programs_when_it_ends_in_time() {
        let world = World::new();
        world.run(["--timeout", "100s", &image::busybox(), "sh", "-c", "exit 5"]).output().exits(5);
    }

    #[test]
    fn is_137_and_named_when_memory_runs_out() {
        let world = World::new();
        let outcome = world.run(["-m", "128m", &image::busybox(), "sh", "-c", "tail /dev/zero"]).output();
        outcome.exits(137).prints("").complains(["memory"]);
    }

    #[test]
    fn is_what_the_shell_says_when_only_a_child_ran_out_of_memory() {
        let world = World::new();
        let outcome =
            world.run(["-m", "128m", &image::busybox(), "sh", "-c", "tail /dev/zero; echo status $?"]).output();
        assert!(outcome.text().contains("status 137") || outcome.status.code() == Some(137), "{outcome}");
        outcome.complains(["memory"]);
    }
}
