//! The store through [`Images`]: what is kept, what is swept, and what a crash or a full disk leaves.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::super::fixtures::{Layer, TarBuilder, full, layout, resolve, resolve_with, small_tmpfs, tree};
use super::super::{Digest, Image, Images, PullPolicy};

struct Bench {
    dir: tempfile::TempDir,
    images: Images,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(&dir.path().join("data")).unwrap();
        Self { dir, images }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// An image of the common base and a layer of its own.
    fn image(&self, name: &str) -> (String, Image) {
        let base = TarBuilder::default().dir("etc", 0o755).file("etc/os", b"one").dir("tmp", 0o1777).end();
        let top = TarBuilder::default().file("etc/app", name.as_bytes()).file("tmp/x", b"three").end();
        let dir =
            layout(&self.dir.path().join(name), "v1", &[Layer::plain(base), Layer::gzip(top)], r#"{"Env":["A=b"]}"#);
        let source = format!("oci:{}:v1", dir.display());
        let image = resolve(&self.images, &source).unwrap();
        (source, image)
    }

    fn layers(&self) -> usize {
        fs::read_dir(self.data().join("layers/sha256")).unwrap().count()
    }

    /// What the next command does first.
    fn next_command(&self) {
        Images::open(&self.data()).unwrap();
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn an_image_is_taken_in_once_and_listed() {
    let bench = Bench::new();
    let (source, image) = bench.image("app");
    assert_eq!(fs::read(image.layers[0].join("etc/os")).unwrap(), b"one");
    assert_eq!(fs::read(image.layers[1].join("etc/app")).unwrap(), b"app");
    assert_eq!((image.config.env.as_slice(), image.size_bytes), (&["A=b".to_owned()][..], 11));
    let listed = bench.images.list().unwrap();
    assert_eq!((listed[0].reference.as_str(), listed[0].id, listed[0].layers), (source.as_str(), image.id, 2));
    let again = resolve(&bench.images, &source).unwrap();
    assert_eq!(inode(&again.layers[0]), inode(&image.layers[0]), "the layer was unpacked again");
    let mode = fs::metadata(image.layers[1].join("tmp")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o1777, "a directory without an entry has the attributes of the layer below");
}

#[test]
fn images_share_layers_until_the_last_is_removed() {
    let bench = Bench::new();
    let (first, image) = bench.image("first");
    let (second, other) = bench.image("second");
    assert_eq!(image.layers[0], other.layers[0]);
    assert_eq!(bench.layers(), 3);
    drop((image, other));
    assert_eq!(bench.images.remove(&first).unwrap(), std::slice::from_ref(&first));
    assert_eq!(bench.layers(), 2);
    let second_id = resolve(&bench.images, &second).unwrap().id;
    assert_eq!(bench.images.remove(&second_id.short()).unwrap(), [second]);
    assert_eq!(bench.layers(), 0);
    let left: Vec<String> = tree(&bench.data()).into_iter().filter(|path| !path.ends_with('/')).collect();
    assert_eq!(left, ["images.json", "images.lock", "lock"]);
}

#[test]
fn unknown_and_ambiguous_names_are_told() {
    let bench = Bench::new();
    assert_eq!(
        full(&bench.images.remove("nothing").unwrap_err()),
        "no image nothing in the store; `sandbox images` lists what is there"
    );
    // Seventeen images: two of them start with the same digit.
    let ids: Vec<Digest> = (0..17).map(|n| bench.image(&format!("image{n}")).1.id).collect();
    let digit = |id: &Digest| id.hex().chars().next().unwrap();
    let same = ids.iter().find(|id| ids.iter().filter(|other| digit(other) == digit(id)).count() > 1).unwrap();
    let digit = digit(same).to_string();
    assert_eq!(
        full(&bench.images.remove(&digit).unwrap_err()),
        format!("{digit} is the start of more than one image's id; give more of its digits")
    );
}

#[test]
fn an_image_in_use_is_not_removed() {
    let bench = Bench::new();
    let (source, image) = bench.image("app");
    assert_eq!(
        full(&bench.images.remove(&source).unwrap_err()),
        format!("image {source} is in use by a running sandbox; end the sandbox first")
    );
    assert_eq!(bench.layers(), 2);
    drop(image);
    bench.images.remove(&source).unwrap();
    assert_eq!(bench.layers(), 0);
}

#[test]
fn layers_in_use_outlive_their_record() {
    let bench = Bench::new();
    let (_, image) = bench.image("app");
    fs::remove_file(bench.data().join("images.json")).unwrap();
    bench.next_command();
    assert!(image.layers[0].join("etc/os").exists());
    drop(image);
    bench.next_command();
    assert_eq!(bench.layers(), 0);
}

#[test]
fn what_a_killed_command_left_is_swept() {
    let bench = Bench::new();
    let (source, image) = bench.image("app");
    let half = bench.data().join("staging/123-abc/fs/usr/bin");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("program"), b"half").unwrap();
    fs::write(bench.data().join("staging/file-123-abc"), b"{").unwrap();
    let orphan = bench.data().join("layers/sha256").join(Digest::of(b"orphan").hex());
    fs::create_dir_all(orphan.join("fs")).unwrap();
    let partial = bench.data().join("ingest").join(Digest::of(b"partial").hex());
    fs::write(&partial, b"begin").unwrap();
    let old = bench.data().join("ingest").join(Digest::of(b"old").hex());
    let file = fs::File::create(&old).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 60 * 60);
    file.set_modified(long_ago).unwrap();

    // Not while somebody else adds to the store.
    let lease = bench.images.store.lease().unwrap();
    bench.next_command();
    assert!(half.exists() && orphan.exists());
    drop(lease);
    bench.next_command();
    assert_eq!(fs::read_dir(bench.data().join("staging")).unwrap().count(), 0);
    assert!(!orphan.exists() && !old.exists());
    assert!(partial.exists(), "a download may be continued");
    assert_eq!(resolve(&bench.images, &source).unwrap().id, image.id);
}

#[test]
fn a_layer_without_its_description_is_unpacked_again() {
    let bench = Bench::new();
    let (source, image) = bench.image("app");
    let layer = image.layers[1].clone();
    drop(image);
    fs::remove_dir_all(layer.parent().unwrap()).unwrap();
    assert!(resolve(&bench.images, &source).unwrap().layers[1].join("etc/app").exists());
}

#[test]
fn a_damaged_or_newer_list_is_refused_and_kept() {
    let bench = Bench::new();
    bench.image("app");
    let list = bench.data().join("images.json");
    let text = fs::read_to_string(&list).unwrap();
    fs::write(&list, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    let shown = list.display();
    assert_eq!(
        full(&Images::open(&bench.data()).unwrap_err()),
        format!(
            "{shown} has version 2, this sandbox knows version 1; use a newer sandbox, or set BULKHEAD_DATA to another directory"
        )
    );
    fs::write(&list, &text[..text.len() / 2]).unwrap();
    let message = full(&Images::open(&bench.data()).unwrap_err());
    assert!(
        message
            .starts_with(&format!("{shown} is damaged; move it away, then pull the images again: EOF while parsing")),
        "{message}"
    );
    assert_eq!(bench.layers(), 2, "nothing is swept by a list that cannot be read");
}

#[test]
fn without_pulling_only_the_store_is_asked() {
    let bench = Bench::new();
    let error = resolve_with(&bench.images, "busybox", PullPolicy::Never).unwrap_err();
    assert_eq!(full(&error), "image busybox:latest is not in the store; run `sandbox pull busybox:latest` first");
}

#[test]
fn an_opaque_root_leaves_out_what_lies_below() {
    let bench = Bench::new();
    let below = TarBuilder::default().file("old", b"x").dir("d", 0o700).end();
    let top = TarBuilder::default().file(".wh..wh..opq", b"").file("d/new", b"y").end();
    let dir = layout(&bench.dir.path().join("l"), "v1", &[Layer::plain(below), Layer::plain(top)], "{}");
    let image = resolve(&bench.images, &format!("oci:{}", dir.display())).unwrap();
    assert_eq!(image.layers.len(), 1);
    assert_eq!(tree(&image.layers[0]), ["d/", "d/new"]);
    assert_eq!(fs::metadata(image.layers[0].join("d")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let bench = Bench::new();
    // Each file is small enough to be believed; together they do not fit.
    let part = vec![1; 700_000];
    let tar = TarBuilder::default().file("a", &part).file("b", &part).file("c", &part).end();
    let dir = layout(&bench.dir.path().join("layout"), "v1", &[Layer::gzip(tar)], "{}");
    let (_mount, data) = small_tmpfs("1500k");
    let images = Images::open(&data).unwrap();
    let source = format!("oci:{}:v1", dir.display());
    let message = full(&resolve(&images, &source).unwrap_err());
    let layer = message.split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(
        message,
        format!(
            "cannot unpack layer {layer} of {source}: no space is left in {} (while writing `c`); free some space there, or set BULKHEAD_DATA to a directory on a larger disk",
            data.display()
        )
    );
    let left: Vec<String> =
        tree(&data).into_iter().filter(|path| !path.ends_with('/') && !path.ends_with("lock")).collect();
    assert_eq!(left, [""; 0]);
    assert_eq!(fs::read_dir(data.join("staging")).unwrap().count(), 0);
}

#[test]
fn an_image_can_be_removed_from_a_full_disk() {
    let bench = Bench::new();
    let tar = TarBuilder::default().file("a", &[1; 700_000]).end();
    let dir = layout(&bench.dir.path().join("layout"), "v1", &[Layer::gzip(tar)], "{}");
    let (_mount, data) = small_tmpfs("1500k");
    let images = Images::open(&data).unwrap();
    let source = format!("oci:{}:v1", dir.display());
    drop(resolve(&images, &source).unwrap());
    let mut filler = fs::File::create(data.join("filler")).unwrap();
    while std::io::Write::write(&mut filler, &[0; 4096]).is_ok() {}
    assert_eq!(images.remove(&source).unwrap(), [source]);
    assert!(images.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(data.join("layers/sha256")).unwrap().count(), 0);
}

/// Not a test of its own: what [`a_killed_command_leaves_nothing`] kills.
#[test]
#[ignore = "run by another test, which kills it"]
fn take_in_until_killed() {
    let Ok(dir) = std::env::var(VICTIM) else { return };
    let dir = PathBuf::from(dir);
    let images = Images::open(&dir.join("data")).unwrap();
    let source = format!("oci:{}:v1", dir.join("layout").display());
    loop {
        drop(resolve(&images, &source).unwrap());
        images.remove(&source).unwrap();
    }
}

const VICTIM: &str = "BULKHEAD_TEST_VICTIM";

#[test]
fn a_killed_command_leaves_nothing() {
    let bench = Bench::new();
    let many = |name: &str| (0..40).fold(TarBuilder::default(), |tar, n| tar.file(&format!("{name}/{n}"), &[1; 3000]));
    let layers = [Layer::gzip(many("below").end()), Layer::gzip(many("above").end())];
    let source = format!("oci:{}:v1", layout(&bench.dir.path().join("layout"), "v1", &layers, "{}").display());
    for round in 0..25 {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "image::store::tests::take_in_until_killed", "--ignored"]);
        command.stdout(std::process::Stdio::null()).env(VICTIM, bench.dir.path());
        let mut victim = command.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(15 + round * 7));
        victim.kill().unwrap();
        victim.wait().unwrap();
        let images = Images::open(&bench.data()).unwrap();
        assert_eq!(fs::read_dir(bench.data().join("staging")).unwrap().count(), 0);
        assert_eq!(bench.layers(), 2 * images.list().unwrap().len(), "layers without a record");
        let image = resolve(&images, &source).unwrap();
        for (layer, name) in image.layers.iter().zip(["below", "above"]) {
            assert_eq!(fs::read_dir(layer.join(name)).unwrap().count(), 40);
        }
        drop(image);
        images.remove(&source).unwrap();
    }
}
