//! Images from a registry: Debian's `docker-registry`, filled by skopeo.

mod on_machine {
    use bulkhead_tests::proxy::Proxy;
    use bulkhead_tests::registry::{PASSWORD, Registry, USER};
    use bulkhead_tests::{Terminal, World, image};

    #[test]
    fn an_image_is_pulled_by_reference_and_run() {
        let registry = Registry::open();
        let reference = registry.push(&image::debian_archive(), "userland:stable");
        let world = World::with_own_store();
        world.run([&reference, "cat", "/etc/os-release"]).output().exits(0);
        let listing = world.sandbox(["images"]).output();
        assert!(listing.text().contains(&reference), "{listing}");
        drop(registry);
        // It is in the store now.
        world.run([&reference, "echo", "stored"]).output().exits(0).prints("stored\n");
    }

    #[test]
    fn an_image_is_pulled_by_digest() {
        let registry = Registry::open();
        let reference = registry.push(&image::busybox_archive(), "box:1");
        let world = World::with_own_store();
        let digest = registry.digest(&reference);
        let by_digest = format!("{}@{digest}", reference.trim_end_matches(":1"));
        world.run([&by_digest, "echo", "exact"]).output().exits(0).prints("exact\n");
        let wrong = format!("{}@sha256:{}", reference.trim_end_matches(":1"), "0".repeat(64));
        world.run([&wrong, "true"]).output().fails_with(["000000"]);
    }

    #[test]
    fn a_pull_shows_progress_on_a_terminal_only() {
        let registry = Registry::open();
        let reference = registry.push(&image::busybox_archive(), "box:1");
        let world = World::with_own_store();
        let quiet = world.sandbox(["pull", &reference]).output();
        quiet.exits(0);
        assert!(!quiet.stderr.contains('\u{1b}'), "{quiet}");
        let world = World::with_own_store();
        let mut terminal = Terminal::start(&world.sandbox(["pull", &reference]), 24, 80);
        assert_eq!(terminal.wait().code(), Some(0), "{}", terminal.shown());
        assert!(terminal.shown().contains('\u{1b}'), "no progress bar: {:?}", terminal.shown());
    }

    #[test]
    fn an_image_that_is_not_there_is_refused() {
        let registry = Registry::open();
        registry.push(&image::busybox_archive(), "box:1");
        let world = World::with_own_store();
        let unknown = format!("{}/no/such/image:1", registry.address());
        world.run([&unknown, "true"]).output().fails_with(["no/such/image"]);
        let unknown_tag = format!("{}/box:2", registry.address());
        world.run([&unknown_tag, "true"]).output().fails_with(["box:2"]);
    }

    #[test]
    fn a_registry_that_cannot_be_reached_is_named() {
        let world = World::with_own_store();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let reference = format!("127.0.0.1:{port}/box:1");
        world.run([&reference, "true"]).output().fails_with([reference.as_str()]);
    }

    #[test]
    fn a_layer_that_was_tampered_with_is_refused() {
        let registry = Registry::open();
        let reference = registry.push(&image::busybox_archive(), "box:1");
        let layer = &registry.blobs()[0];
        let mut bytes = std::fs::read(layer).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(layer, bytes).unwrap();
        let world = World::with_own_store();
        world.run([&reference, "true"]).output().fails_with(["sha256:"]);
        assert_eq!(std::fs::read_dir(world.data_directory().join("layers/sha256")).map_or(0, Iterator::count), 0);
    }

    #[test]
    fn credentials_come_from_dockers_configuration() {
        let registry = Registry::guarded();
        let reference = registry.push(&image::busybox_archive(), "box:1");
        let world = World::with_own_store();
        let empty = world.file("none/config.json", "{}");
        let without = world.run([&reference, "true"]).variable("DOCKER_CONFIG", empty.parent().unwrap()).output();
        without.fails_with([reference.as_str()]);
        let token = base64(format!("{USER}:{PASSWORD}").as_bytes());
        let config = serde_json::json!({ "auths": { registry.address().to_string(): { "auth": token } } });
        let file = world.file("docker/config.json", config.to_string());
        let with = world.run([&reference, "echo", "let in"]).variable("DOCKER_CONFIG", file.parent().unwrap()).output();
        with.exits(0).prints("let in\n");
        assert!(!with.stderr.contains(PASSWORD), "{with}");
    }

    /// RFC 4648, section 4.
    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let mut group = [0; 4];
            group[1..=chunk.len()].copy_from_slice(chunk);
            let number = u32::from_be_bytes(group);
            for place in 0..4 {
                let digit = DIGITS[(number >> (18 - 6 * place) & 63) as usize] as char;
                text.push(if place <= chunk.len() { digit } else { '=' });
            }
        }
        text
    }

    #[test]
    fn a_pull_that_was_cut_short_is_continued() {
        let registry = Registry::open();
        registry.push(&image::debian_archive(), "userland:stable");
        let whole = std::fs::metadata(&registry.blobs()[0]).unwrap().len();
        let proxy = Proxy::cutting(registry.address(), whole / 2, 1);
        let reference = format!("{}/userland:stable", proxy.address());
        let world = World::with_own_store();
        // Whether the first pull tries again by itself or the second one does, what has arrived is not fetched again.
        let first = world.sandbox(["pull", &reference]).output();
        if first.status.code() != Some(0) {
            first.fails_with([reference.as_str()]);
            world.sandbox(["pull", &reference]).output().exits(0);
        }
        let all: u64 = registry.blobs().iter().map(|blob| std::fs::metadata(blob).unwrap().len()).sum();
        assert!(proxy.bytes() < all + whole / 4, "{} bytes fetched of an image of {all}", proxy.bytes());
        world.run([&reference, "echo", "complete"]).output().exits(0).prints("complete\n");
    }

    #[test]
    fn a_killed_pull_leaves_the_store_usable() {
        let registry = Registry::open();
        let reference = registry.push(&image::debian_archive(), "userland:stable");
        for delay_ms in [30, 150, 400, 1000] {
            let world = World::with_own_store();
            let running = world.sandbox(["pull", &reference]).spawn();
            std::thread::sleep(std::time::Duration::from_millis(delay_ms));
            running.signal(rustix::process::Signal::KILL);
            running.wait();
            world.run([&reference, "echo", "whole"]).output().exits(0).prints("whole\n");
            world.assert_nothing_left();
        }
    }
}
