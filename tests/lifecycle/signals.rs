//! Signals: what the user's terminal or a service manager sends reaches the container.

mod on_both {
    use std::time::Duration;

    use bulkhead_tests::{Running, World, image};
    use rustix::process::Signal;

    fn trapping(world: &World) -> Running {
        let traps: String = ["TERM", "INT", "HUP", "QUIT", "USR1"]
            .iter()
            .map(|name| format!("trap 'echo got {name}; exit 3' {name}; "))
            .collect();
        let script = format!("{traps} echo ready; while :; do sleep 0.1; done");
        let mut running = world.run([&image::busybox(), "sh", "-c", &script]).spawn();
        running.wait_for_stdout("ready\n");
        running
    }

    fn is_passed_on(signal: Signal, name: &str) {
        let world = World::new();
        let running = trapping(&world);
        running.signal(signal);
        running.wait().exits(3).prints(&format!("ready\ngot {name}\n"));
    }

    #[test]
    fn term_is_passed_on() {
        is_passed_on(Signal::TERM, "TERM");
    }

    #[test]
    fn int_is_passed_on() {
        is_passed_on(Signal::INT, "INT");
    }

    #[test]
    fn usr1_is_passed_on() {
        is_passed_on(Signal::USR1, "USR1");
    }

    #[test]
    fn hup_is_passed_on() {
        is_passed_on(Signal::HUP, "HUP");
    }

    #[test]
    fn quit_is_passed_on() {
        is_passed_on(Signal::QUIT, "QUIT");
    }

    #[test]
    fn a_third_int_ends_the_vm() {
        let world = World::new();
        let mut running =
            world.run([&image::busybox(), "sh", "-c", "trap '' INT; echo ready; while :; do sleep 0.1; done"]).spawn();
        running.wait_for_stdout("ready\n");
        for _ in 0..3 {
            running.signal(Signal::INT);
            std::thread::sleep(Duration::from_millis(200));
        }
        let outcome = running.wait();
        outcome.exits(130);
        assert!(outcome.elapsed < Duration::from_secs(60), "{outcome}");
    }

    #[test]
    fn an_int_while_the_guest_boots_ends_the_sandbox() {
        let world = World::new();
        let running = world.run([&image::busybox(), "sh", "-c", "sleep 1000"]).spawn();
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..3 {
            running.signal(Signal::INT);
            std::thread::sleep(Duration::from_millis(100));
        }
        let outcome = running.wait();
        assert_ne!(outcome.status.code(), Some(0), "{outcome}");
        assert!(outcome.elapsed < Duration::from_secs(30), "{outcome}");
    }
}
