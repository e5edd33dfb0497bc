//! `-t`: the guest's terminal is the user's, and the user's is given back as it was.

mod on_both {
    use bulkhead_tests::{Terminal, World, image};
    use rustix::process::{Pid, Signal, kill_process};

    #[test]
    fn has_the_users_size_before_the_first_byte_and_follows_it() {
        let world = World::new();
        let script = "stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done";
        let mut terminal = Terminal::start(&world.run(["-it", &image::busybox(), "sh", "-c", script]), 33, 101);
        terminal.expect("33 101");
        terminal.expect("ready");
        terminal.resize(44, 77);
        terminal.expect("44 77");
        terminal.types("\u{3}");
        assert_eq!(terminal.wait().code(), Some(130), "{}", terminal.shown());
        terminal.assert_restored();
    }

    #[test]
    fn is_a_shell_one_can_talk_to() {
        let world = World::new();
        let mut terminal = Terminal::start(&world.run(["-it", &image::debian(), "bash"]), 24, 80);
        terminal.expect("# ");
        terminal.types("tty; echo sum $((40+2))\n");
        terminal.expect("sum 42");
        terminal.expect("/dev/pts/0");
        assert!(terminal.is_raw(), "the user's terminal echoes on its own");
        terminal.types("exit 9\n");
        assert_eq!(terminal.wait().code(), Some(9), "{}", terminal.shown());
        terminal.assert_restored();
    }

    #[test]
    fn what_is_typed_while_the_guest_boots_is_not_lost() {
        let world = World::new();
        let invocation = world.run(["-it", &image::busybox(), "sh", "-c", "read line; echo \"<$line>\""]);
        let mut terminal = Terminal::start(&invocation, 24, 80);
        terminal.types("early\r");
        terminal.expect("<early>");
        assert_eq!(terminal.wait().code(), Some(0), "{}", terminal.shown());
    }

    #[test]
    fn end_of_file_is_typed() {
        let world = World::new();
        let mut terminal =
            Terminal::start(&world.run(["-it", &image::busybox(), "sh", "-c", "echo ready; cat; echo over"]), 24, 80);
        terminal.expect("ready");
        terminal.types("line\n");
        terminal.expect("line\r\nline\r\n");
        terminal.types("\u{4}");
        terminal.expect("over");
        assert_eq!(terminal.wait().code(), Some(0));
        terminal.assert_restored();
    }

    #[test]
    fn is_restored_when_the_sandbox_is_told_to_end() {
        let world = World::new();
        let mut terminal =
            Terminal::start(&world.run(["-it", &image::busybox(), "sh", "-c", "echo up; exec sleep 1000"]), 24, 80);
        terminal.expect("up");
        terminal.signal(Signal::TERM);
        // sleep is PID 1 of its namespace and has no handler: only more than a TERM ends it.
        for _ in 0..3 {
            terminal.signal(Signal::INT);
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        terminal.wait();
        terminal.assert_restored();
    }

    #[test]
    fn is_restored_when_the_vmm_is_killed() {
        let world = World::new();
        let mut terminal =
            Terminal::start(&world.run(["-it", &image::busybox(), "sh", "-c", "echo up; sleep 1000"]), 24, 80);
        terminal.expect("up");
        for pid in world.processes("vmm run") {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
        assert_eq!(terminal.wait().code(), Some(125), "{}", terminal.shown());
        terminal.assert_restored();
    }

    #[test]
    fn t_without_a_terminal_is_refused() {
        let world = World::new();
        world.run(["-it", &image::busybox(), "true"]).output().fails_with(["terminal"]);
    }
}
