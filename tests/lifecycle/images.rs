//! Where images come from, what they hold, and the store that keeps them.

mod on_both {
    use bulkhead_tests::archive::{self, Entry};
    use bulkhead_tests::{World, image};
    use serde_json::json;

    /// A layer with busybox and a shell.
    pub(super) fn base() -> Vec<Entry> {
        vec![
            Entry::directory("bin/"),
            Entry::program("bin/busybox", &std::fs::read("/bin/busybox").unwrap()),
            Entry::symlink("bin/sh", "busybox"),
            Entry::directory("etc/"),
            Entry::file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nann:x:700:701:Ann:/home/ann:/bin/sh\n"),
            Entry::file("etc/group", b"root:x:0:\nann:x:701:\nextra:x:702:ann\n"),
        ]
    }

    /// An archive of busybox and `layers` above it, as `sandbox run` takes it.
    fn image_of(world: &World, layers: &[Vec<Entry>], config: &serde_json::Value) -> String {
        let all: Vec<Vec<u8>> =
            std::iter::once(base()).chain(layers.to_vec()).map(|layer| archive::layer(&layer)).collect();
        let file = archive::docker_archive(&world.path().join("image.tar"), &all, config);
        format!("docker-archive:{}", file.display())
    }

    #[test]
    fn a_docker_archive_runs() {
        let world = World::new();
        let source = format!("docker-archive:{}", image::busybox_archive().display());
        world.run([&source, "echo", "archived"]).output().exits(0).prints("archived\n");
    }

    #[test]
    fn the_images_configuration_is_honoured() {
        let world = World::with_own_store();
        let config = json!({
            "Env": ["A=from the image", "PATH=/bin"],
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["/bin/busybox id -un; /bin/busybox id -G; /bin/busybox pwd; echo $A; echo $HOME"],
            "User": "ann",
            "WorkingDir": "/made/for/us",
        });
        let source = image_of(&world, &[], &config);
        world.run([&source]).output().exits(0).prints("ann\n701 702\n/made/for/us\nfrom the image\n/home/ann\n");
        world.run([&source, "echo other"]).output().exits(0).prints("other\n");
        world
            .run([
                "-e",
                "A=b",
                "-w",
                "/etc",
                "-u",
                "root",
                "--entrypoint",
                "/bin/busybox",
                &source,
                "sh",
                "-c",
                "echo $A; pwd; id -u",
            ])
            .output()
            .exits(0)
            .prints("b\n/etc\n0\n");
    }

    #[test]
    fn an_image_without_a_command_needs_one() {
        let world = World::with_own_store();
        let source = image_of(&world, &[], &json!({}));
        world.run([&source]).output().fails_with(["command"]);
        world.run([&source, "/bin/sh", "-c", "echo x"]).output().exits(0).prints("x\n");
    }

    #[test]
    fn upper_layers_change_replace_and_remove() {
        let world = World::with_own_store();
        let lower = vec![
            Entry::directory("d/"),
            Entry::file("d/kept", b"lower\n"),
            Entry::file("d/changed", b"lower\n"),
            Entry::file("d/removed", b"lower\n"),
            Entry::directory("opaque/"),
            Entry::file("opaque/hidden", b"lower\n"),
            Entry::directory("becomes-file/"),
            Entry::file("becomes-file/x", b"lower\n"),
            Entry::file("becomes-directory", b"lower\n"),
            Entry::directory("gone/"),
            Entry::file("gone/x", b"lower\n"),
        ];
        let upper = vec![
            Entry::directory("d/"),
            Entry::file("d/changed", b"upper\n"),
            Entry::file("d/.wh.removed", b""),
            Entry::directory("opaque/"),
            Entry::file("opaque/.wh..wh..opq", b""),
            Entry::file("opaque/shown", b"upper\n"),
            Entry::file("becomes-file", b"upper\n"),
            Entry::directory("becomes-directory/"),
            Entry::file("becomes-directory/x", b"upper\n"),
            Entry::file(".wh.gone", b""),
        ];
        let source = image_of(&world, &[lower, upper], &json!({ "Env": ["PATH=/bin"] }));
        let script = "b=/bin/busybox; cd /d; $b ls; $b cat kept changed; $b ls /opaque; $b cat /becomes-file /becomes-directory/x; \
                      test -e /gone || echo gone is gone; echo w >/opaque/hidden; $b ls /opaque | $b tr '\\n' ' '";
        let expected = "changed\nkept\nlower\nupper\nshown\nupper\nupper\ngone is gone\nhidden shown ";
        world.run([&source, "/bin/sh", "-c", script]).output().exits(0).prints(expected);
    }

    #[test]
    fn links_owners_and_modes_survive() {
        let world = World::with_own_store();
        let layer = vec![
            Entry::directory("d/").owned_by(700, 701).with_mode(0o2750),
            Entry::file("d/one", b"content\n").owned_by(700, 701).with_mode(0o4711),
            Entry::hard_link("d/two", "d/one"),
            Entry::symlink("d/link", "one"),
            Entry::symlink("d/absolute", "/d/one"),
            Entry::file(&format!("d/{}", "n".repeat(255)), b"long\n"),
        ];
        let source = image_of(&world, &[layer], &json!({ "Env": ["PATH=/bin"] }));
        let script = "b=/bin/busybox; cd /d; $b stat -c '%u:%g %a %h' . one; $b cat two link absolute; $b cat n*; \
                      [ $($b stat -c %i one) = $($b stat -c %i two) ] && echo one file";
        let outcome = world.run([&source, "/bin/sh", "-c", script]).output();
        outcome.exits(0).prints("700:701 2750 2\n700:701 4711 2\ncontent\ncontent\ncontent\nlong\none file\n");
    }

    #[test]
    fn a_layer_that_two_images_share_is_stored_once() {
        let world = World::with_own_store();
        let one = image_of(&world, &[], &json!({ "Cmd": ["/bin/sh", "-c", "echo one"] }));
        world.run([&one]).output().exits(0).prints("one\n");
        let layers = || std::fs::read_dir(world.data_directory().join("layers/sha256")).unwrap().count();
        let before = layers();
        let two = image_of(&world, &[], &json!({ "Cmd": ["/bin/sh", "-c", "echo two"] }));
        world.run([&two]).output().exits(0).prints("two\n");
        assert_eq!(layers(), before);
    }
}

mod on_machine {
    use bulkhead_tests::{World, image};

    #[test]
    fn images_are_pulled_listed_and_removed() {
        let world = World::with_own_store();
        let source = image::busybox();
        world.sandbox(["pull", &source]).output().exits(0);
        let listing = world.sandbox(["images", "--format", "json"]).output();
        let images: serde_json::Value = serde_json::from_slice(&listing.stdout).unwrap();
        assert_eq!(images["images"].as_array().unwrap().len(), 1, "{images:#}");
        let table = world.sandbox(["images"]).output();
        assert!(table.text().contains(":demo"), "{table}");
        let id = images["images"][0]["id"].as_str().unwrap().to_owned();
        world.sandbox(["rmi", &id]).output().exits(0);
        let listing = world.sandbox(["images", "--format", "json"]).output();
        let images: serde_json::Value = serde_json::from_slice(&listing.stdout).unwrap();
        assert_eq!(images["images"].as_array().unwrap().len(), 0, "{images:#}");
        assert_eq!(std::fs::read_dir(world.data_directory().join("layers/sha256")).unwrap().count(), 0);
        world.sandbox(["rmi", "never-pulled"]).output().fails_with(["never-pulled"]);
    }

    #[test]
    fn an_image_in_use_is_not_removed() {
        let world = World::with_own_store();
        let source = image::busybox();
        let mut running = world.run([&source, "sh", "-c", "echo up; sleep 1000"]).spawn();
        running.wait_for_stdout("up\n");
        world.sandbox(["rmi", &source]).output().fails_with(["in use"]);
        running.signal(rustix::process::Signal::KILL);
        running.wait();
        world.assert_nothing_left();
        world.sandbox(["rmi", &source]).output().exits(0);
    }

    #[test]
    fn local_images_that_are_not_there_are_refused() {
        let world = World::new();
        world.run(["docker-archive:/no/such/file.tar", "true"]).output().fails_with(["/no/such/file.tar"]);
        world.run(["oci:/no/such/directory:latest", "true"]).output().fails_with(["/no/such/directory"]);
        let missing_tag = image::busybox().replace(":demo", ":no-such-tag");
        world.run([&missing_tag, "true"]).output().fails_with(["no-such-tag"]);
        let not_an_archive = world.file("text.tar", "this is no archive");
        world.run([&format!("docker-archive:{}", not_an_archive.display()), "true"]).output().fails_with(["text.tar"]);
        world.run(["UPPER/case", "true"]).output().fails_with(["UPPER"]);
        world.run(["", "true"]).output().fails_with(["empty"]);
    }
}
