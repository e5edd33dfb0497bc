//! SIGKILL at any moment, to any of our processes: the command says so, and nothing is left.

mod on_both {
    use std::time::Duration;

    use bulkhead_tests::{World, image};
    use rustix::process::{Pid, Signal, kill_process};

    /// From before the vmm exists, through the guest's boot, to the running container.
    const MOMENTS_MS: [u64; 7] = [20, 100, 300, 700, 1200, 2500, 5000];

    #[test]
    fn the_vmm_goes_when_the_command_is_killed_at_any_moment() {
        for moment_ms in MOMENTS_MS {
            let world = World::new();
            let running = world.run([&image::busybox(), "sh", "-c", "sleep 1000"]).spawn();
            std::thread::sleep(Duration::from_millis(moment_ms));
            let vmm_lived = !world.processes("vmm run").is_empty();
            running.signal(Signal::KILL);
            let outcome = running.wait();
            assert_eq!(outcome.status.code(), None, "it ended by itself after {moment_ms} ms\n{outcome}");
            // Between making its directory and starting the vmm the command was alone: the next one sweeps.
            if !vmm_lived {
                world.sandbox(["images"]).output().exits(0);
            }
            world.assert_nothing_left();
        }
    }

    #[test]
    fn the_command_fails_when_the_vmm_is_killed_at_any_moment() {
        for moment_ms in MOMENTS_MS {
            let world = World::new();
            let running = world.run([&image::busybox(), "sh", "-c", "sleep 1000"]).spawn();
            // The vmm may not exist yet.
            std::thread::sleep(Duration::from_millis(moment_ms));
            let mut vmms = world.processes("vmm run");
            for _ in 0..200 {
                if !vmms.is_empty() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
                vmms = world.processes("vmm run");
            }
            assert!(!vmms.is_empty(), "no vmm after {moment_ms} ms");
            for pid in vmms {
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
            let outcome = running.wait();
            outcome.fails_with(["vmm"]);
            world.assert_nothing_left();
        }
    }

    #[test]
    fn both_killed_at_once_leave_nothing_that_the_next_command_does_not_sweep() {
        let world = World::new();
        let mut running = world.run([&image::busybox(), "sh", "-c", "echo up; sleep 1000"]).spawn();
        running.wait_for_stdout("up\n");
        let mut pids = world.processes("vmm run");
        pids.extend(world.processes("qemu"));
        running.signal(Signal::KILL);
        for pid in pids {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        running.wait();
        world.run([&image::busybox(), "true"]).output().exits(0);
        world.assert_nothing_left();
    }

    #[test]
    fn a_container_that_is_stopped_by_its_time_limit_leaves_nothing() {
        let world = World::new();
        let script = "trap '' TERM INT HUP; sh -c 'trap \"\" TERM; sleep 1000' & while :; do sleep 1; done";
        world.run(["--timeout", "4s", &image::busybox(), "sh", "-c", script]).output().exits(124);
        world.assert_nothing_left();
    }

    #[test]
    fn a_fork_bomb_stays_in_its_sandbox() {
        let world = World::new();
        let script = "f() { f | f & }; f; sleep 3; exit 0";
        let outcome = world.run(["--timeout", "40s", "-m", "128m", &image::busybox(), "sh", "-c", script]).output();
        assert!(outcome.status.code().is_some(), "{outcome}");
        world.assert_nothing_left();
    }
}

mod on_emulated {
    use bulkhead_tests::{World, image};
    use rustix::process::{Pid, Signal, kill_process};

    #[test]
    fn the_command_fails_when_qemu_is_killed() {
        let world = World::new();
        let mut running = world.run([&image::busybox(), "sh", "-c", "echo up; sleep 1000"]).spawn();
        running.wait_for_stdout("up\n");
        let qemus = world.processes("qemu-system");
        assert!(!qemus.is_empty(), "no QEMU runs");
        for pid in qemus {
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        }
        running.wait().exits(125).complains(["qemu"]);
        world.assert_nothing_left();
    }
}
