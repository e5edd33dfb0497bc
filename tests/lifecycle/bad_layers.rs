//! Layers that are damaged or hostile: refused or made harmless, and nothing of them outside the store or left in it.

mod on_machine {
    use std::path::Path;

    use bulkhead_tests::archive::{self, Entry, OciLayout};
    use bulkhead_tests::{Outcome, World};
    use serde_json::json;

    fn pull(world: &World, entries: &[Entry]) -> Outcome {
        let file = archive::docker_archive(&world.path().join("hostile.tar"), &[archive::layer(entries)], &json!({}));
        world.sandbox(["pull", &format!("docker-archive:{}", file.display())]).output()
    }

    /// The store holds no image, no layer and nothing half-made.
    fn assert_empty(world: &World) {
        let layers = std::fs::read_dir(world.data_directory().join("layers/sha256")).map_or(0, Iterator::count);
        assert_eq!(layers, 0, "a refused layer is in the store");
        world.assert_nothing_left();
        let listing = world.sandbox(["images", "--format", "json"]).output();
        assert!(listing.text().contains("\"images\":[]") || listing.text().contains("\"images\": []"), "{listing}");
    }

    fn refused(entries: &[Entry], because: &[&str]) {
        let world = World::with_own_store();
        pull(&world, entries).fails_with(because);
        assert_empty(&world);
    }

    /// Where an entry that leaves the layer would arrive, from a layer's directory in the store.
    fn victim(world: &World) -> std::path::PathBuf {
        world.file("victim", "untouched")
    }

    fn assert_untouched(path: &Path) {
        assert_eq!(std::fs::read_to_string(path).unwrap(), "untouched");
    }

    #[test]
    fn names_with_dot_dot_are_refused() {
        refused(&[Entry::file("../victim", b"x")], &["../victim"]);
        refused(&[Entry::directory("a/"), Entry::file("a/../../../../../../victim", b"x")], &["victim"]);
        refused(&[Entry::file("x", b""), Entry::hard_link("out", "../../../../../victim")], &["victim"]);
    }

    #[test]
    fn absolute_names_stay_inside() {
        let world = World::with_own_store();
        let victim = victim(&world);
        pull(&world, &[Entry::file(&victim.display().to_string(), b"overwritten")]);
        assert_untouched(&victim);
    }

    #[test]
    fn links_that_point_outside_are_not_followed() {
        let world = World::with_own_store();
        let victim = victim(&world);
        let directory = world.path().display().to_string();
        let entries = [
            Entry::symlink("away", &directory),
            Entry::file("away/victim", b"overwritten"),
            Entry::file("away/new", b"x"),
        ];
        pull(&world, &entries);
        assert_untouched(&victim);
        assert!(!world.path().join("new").exists());
        let world = World::with_own_store();
        let victim = self::victim(&world);
        let entries = [Entry::symlink("file", &victim.display().to_string()), Entry::file("file", b"overwritten")];
        pull(&world, &entries).exits(0);
        assert_untouched(&victim);
    }

    #[test]
    fn a_hard_link_does_not_reach_a_file_of_the_host() {
        let world = World::with_own_store();
        let victim = victim(&world);
        let target = victim.display().to_string();
        pull(&world, &[Entry::hard_link("stolen", &target)]).fails_with(["stolen"]);
        let entries =
            [Entry::symlink("away", &world.path().display().to_string()), Entry::hard_link("stolen", "away/victim")];
        pull(&world, &entries).fails_with(["stolen"]);
        assert_empty(&world);
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(victim).unwrap()), 1);
    }

    #[test]
    fn device_nodes_are_not_made() {
        let world = World::with_own_store();
        pull(&world, &[Entry::directory("dev/"), Entry::device("dev/memory", 1, 1), Entry::file("file", b"x")])
            .exits(0);
        assert!(find(world.data_directory(), "memory").is_none(), "a device of the image is on the host");
        assert!(find(world.data_directory(), "file").is_some());
    }

    fn find(directory: &Path, name: &str) -> Option<std::path::PathBuf> {
        for entry in std::fs::read_dir(directory).ok()?.flatten() {
            if entry.file_name() == name {
                return Some(entry.path());
            }
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if let Some(found) = is_directory.then(|| find(&entry.path(), name)).flatten() {
                return Some(found);
            }
        }
        None
    }

    #[test]
    fn a_name_of_255_bytes_is_taken_and_one_of_256_refused() {
        let world = World::with_own_store();
        let name = "n".repeat(255);
        pull(&world, &[Entry::file(&name, b"x")]).exits(0);
        assert!(find(world.data_directory(), &name).is_some());
        refused(&[Entry::file(&"n".repeat(256), b"x")], &["256"]);
    }

    #[test]
    fn whiteouts_of_a_parent_are_refused() {
        refused(&[Entry::directory("a/"), Entry::file("a/.wh...", b"")], &["whiteout"]);
        refused(&[Entry::file(".wh..", b"")], &["whiteout"]);
        refused(&[Entry::file(".wh.", b"")], &["whiteout"]);
    }

    #[test]
    fn an_archive_that_claims_ten_terabytes_is_refused() {
        refused(&[Entry::claiming("huge", 10_000_000_000_000)], &["huge"]);
    }

    #[test]
    fn a_truncated_layer_is_refused() {
        let world = World::with_own_store();
        let layer = archive::layer(&[Entry::file("big", &vec![7; 200_000])]);
        let layout = OciLayout::write(&world.path().join("layout"), &[layer], &json!({}));
        let path = layout.layer_path(0);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        world.sandbox(["pull", &layout.reference()]).output().fails_with(["sha256:"]);
        assert_empty(&world);
    }

    #[test]
    fn a_layer_whose_digest_does_not_match_is_refused() {
        let world = World::with_own_store();
        let layer = archive::layer(&[Entry::file("f", b"expected")]);
        let layout = OciLayout::write(&world.path().join("layout"), &[layer], &json!({}));
        let other = archive::gzipped(&archive::layer(&[Entry::file("f", b"replaced")]));
        let path = layout.layer_path(0);
        let mut padded = other;
        padded.resize(usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap(), 0);
        std::fs::write(&path, padded).unwrap();
        world.sandbox(["pull", &layout.reference()]).output().fails_with(["sha256:"]);
        assert_empty(&world);
    }

    #[test]
    fn a_layer_that_is_no_archive_is_refused() {
        let world = World::with_own_store();
        let layout = OciLayout::write(&world.path().join("layout"), &[vec![b'x'; 5000]], &json!({}));
        world.sandbox(["pull", &layout.reference()]).output().fails_with(["archive"]);
        assert_empty(&world);
    }

    #[test]
    fn a_full_disk_is_reported_and_leaves_nothing() {
        let world = World::with_own_store();
        std::fs::create_dir_all(world.data_directory()).unwrap();
        let layer = archive::layer(&[Entry::file("a", &vec![1; 900_000]), Entry::file("b", &vec![2; 900_000])]);
        let layout = OciLayout::write(&world.path().join("layout"), &[layer], &json!({}));
        // A store of 1 MiB, in a mount namespace that ends with the command; what it leaves is listed on the way.
        let script = format!(
            "mount -t tmpfs -o size=1m tmpfs '{data}'; \"$0\" \"$@\"; status=$?; find '{data}/staging' '{data}/layers' -mindepth 2 >&2; exit $status",
            data = world.data_directory().display()
        );
        let outcome = world
            .sandbox(["pull", &layout.reference()])
            .under("unshare", ["--mount", "--", "sh", "-c", &script])
            .output();
        outcome.fails_with(["space"]);
        assert!(!outcome.stderr.contains("/staging/"), "{outcome}");
    }
}
