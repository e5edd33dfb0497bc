//! What a container has of its own: the namespaces, the capabilities and the files of a container, in its own machine.

mod on_both {
    use bulkhead_tests::{World, image};

    #[test]
    fn sees_its_own_processes_only() {
        let world = World::new();
        let script = "ls -d /proc/[0-9]* | wc -l; readlink /proc/1/exe; echo $$";
        let outcome = world.run([&image::busybox(), "sh", "-c", script]).output();
        outcome.exits(0);
        let text = outcome.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].parse::<u32>().unwrap() <= 3, "{outcome}");
        assert_eq!(lines[1..], ["/bin/busybox", "1"], "{outcome}");
    }

    #[test]
    fn has_dockers_default_capabilities_and_no_more() {
        let world = World::new();
        let outcome =
            world.run([&image::busybox(), "sh", "-c", "grep -E '^(CapEff|NoNewPrivs)' /proc/self/status"]).output();
        outcome.exits(0);
        let text = outcome.text();
        let effective = text.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
        // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD
        // AUDIT_WRITE SETFCAP, docker's default set.
        assert_eq!(u64::from_str_radix(effective, 16).unwrap() & !0xa804_25fb, 0, "{outcome}");
    }

    #[test]
    fn masked_and_read_only_paths_of_proc_are_so() {
        let world = World::new();
        let script = "cat /proc/kcore 2>/dev/null | head -c1 | wc -c; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | wc -w; \
                      echo 1 2>/dev/null >/proc/sys/kernel/panic || echo refused; echo c 2>/dev/null >/proc/sysrq-trigger || echo refused";
        world.run([&image::busybox(), "sh", "-c", script]).output().exits(0).prints("0\n0\nrefused\nrefused\n");
    }

    #[test]
    fn does_not_see_the_hosts_files() {
        let world = World::new();
        let secret = world.file("secret", "x");
        let path = secret.display().to_string();
        world.run([&image::busybox(), "cat", &path]).output().exits(1).prints("");
    }

    #[test]
    fn has_the_devices_of_a_container() {
        let world = World::new();
        let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
                      test -d /dev/shm && test -d /dev/pts && test -e /dev/ptmx && test -e /dev/fd && ls /dev | grep -cE '^(vd|sd|mem|kmsg|vport)'";
        world.run([&image::busybox(), "sh", "-c", script]).output().exits(1).prints("0\n");
    }

    #[test]
    fn a_disk_of_the_guest_cannot_be_opened_through_a_node_of_ones_own() {
        let world = World::new();
        let script = "mknod /tmp/disk b 254 0 && head -c1 /tmp/disk | wc -c; mknod /tmp/mem c 1 1 && head -c1 /tmp/mem | wc -c; true";
        let outcome = world.run([&image::busybox(), "sh", "-c", script]).output();
        assert!(!outcome.text().contains('1'), "a device was readable\n{outcome}");
    }
}
