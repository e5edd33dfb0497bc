//! Layouts as they should be, incomplete, and damaged.

use std::fs;

use super::super::Images;
use super::super::fixtures::{Layer, TarBuilder, config_json, full, layout, layout_with_config, resolve, resolve_with};
use super::super::{Digest, PullPolicy};

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

    fn layout(&self, tag: &str, tar: TarBuilder) -> String {
        let dir = layout(&self.dir.path().join("layout"), tag, &[Layer::gzip(tar.end())], "{}");
        format!("oci:{}", dir.display())
    }

    fn refused(&self, source: &str) -> String {
        let message = full(&resolve(&self.images, source).unwrap_err());
        assert!(self.images.list().unwrap().is_empty());
        let staging = fs::read_dir(self.dir.path().join("data/staging")).unwrap().count();
        assert_eq!(staging, 0, "something was left behind");
        message.replace(self.dir.path().to_str().unwrap(), "TMP")
    }
}

#[test]
fn the_tag_may_be_left_out_of_a_layout_with_one_image() {
    let bench = Bench::new();
    let source = bench.layout("v1", TarBuilder::default().file("a", b"x"));
    assert_eq!(
        resolve(&bench.images, &source).unwrap().id,
        resolve(&bench.images, &format!("{source}:v1")).unwrap().id
    );
    let image = resolve_with(&bench.images, &source, PullPolicy::Never).unwrap();
    assert!(image.layers[0].join("a").is_file());
}

#[test]
fn a_layout_that_changes_is_read_again() {
    let bench = Bench::new();
    let source = bench.layout("v1", TarBuilder::default().file("a", b"x"));
    let first = resolve(&bench.images, &source).unwrap();
    bench.layout("v1", TarBuilder::default().file("b", b"x"));
    let second = resolve(&bench.images, &source).unwrap();
    assert_ne!(first.id, second.id);
    assert!(second.layers[0].join("b").is_file());
    assert_eq!(bench.images.list().unwrap().len(), 1);
}

#[test]
fn a_missing_tag_or_layout_is_named() {
    let bench = Bench::new();
    let source = bench.layout("v1", TarBuilder::default().file("a", b"x"));
    assert_eq!(
        bench.refused(&format!("{source}:v2")),
        "cannot use oci:TMP/layout:v2: TMP/layout does not hold the tag `v2`; it holds v1"
    );
    let nowhere = bench.dir.path().join("nowhere");
    assert_eq!(
        bench.refused(&format!("oci:{}", nowhere.display())),
        "cannot use oci:TMP/nowhere: TMP/nowhere is not an OCI image layout: it has no oci-layout and index.json. `skopeo copy SOURCE oci:DIR:TAG` makes one"
    );
}

#[test]
fn several_images_need_a_tag() {
    let bench = Bench::new();
    let source = bench.layout("v1", TarBuilder::default().file("a", b"x"));
    let index = bench.dir.path().join("layout/index.json");
    let one = fs::read_to_string(&index).unwrap();
    bench.layout("v2", TarBuilder::default().file("b", b"x"));
    let two = fs::read_to_string(&index).unwrap();
    let entries = |text: &str| text.split_once('[').unwrap().1.rsplit_once(']').unwrap().0.to_owned();
    fs::write(&index, format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, entries(&one), entries(&two))).unwrap();
    assert_eq!(
        bench.refused(&source),
        "cannot use oci:TMP/layout: TMP/layout holds several images, name one of them: v1, v2"
    );
    assert!(resolve(&bench.images, &format!("{source}:v2")).is_ok());
}

#[test]
fn a_missing_or_short_blob_is_named() {
    let bench = Bench::new();
    let tar = TarBuilder::default().file("a", b"x");
    let source = bench.layout("v1", tar.clone());
    let layer = Layer::gzip(tar.end()).blob;
    let digest = Digest::of(&layer);
    let blob = bench.dir.path().join("layout/blobs/sha256").join(digest.hex());
    fs::write(&blob, &layer[..50]).unwrap();
    assert_eq!(
        bench.refused(&source),
        format!(
            "cannot use oci:TMP/layout: blob {digest} in TMP/layout has 50 bytes instead of {}: the copy is incomplete or damaged",
            layer.len()
        )
    );
    fs::remove_file(&blob).unwrap();
    assert_eq!(
        bench.refused(&source),
        format!("cannot use oci:TMP/layout: TMP/layout lacks the blob {digest}: the copy is incomplete")
    );
    // A pipe would keep us waiting for ever.
    rustix::fs::mknodat(rustix::fs::CWD, &blob, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    assert!(bench.refused(&source).contains("lacks the blob"));
}

#[test]
fn a_damaged_layer_is_refused() {
    let bench = Bench::new();
    let tar = TarBuilder::default().file("a", b"x").end();
    let source =
        format!("oci:{}", layout(&bench.dir.path().join("layout"), "v1", &[Layer::plain(tar.clone())], "{}").display());
    let digest = Digest::of(&tar);
    let mut damaged = tar;
    damaged[520] ^= 1;
    fs::write(bench.dir.path().join("layout/blobs/sha256").join(digest.hex()), &damaged).unwrap();
    let message = bench.refused(&source);
    assert!(
        message.starts_with(&format!("cannot unpack layer {digest} of oci:TMP/layout: its di"))
            && message.contains(&format!("expected {digest}, got {}", Digest::of(&damaged))),
        "{message}"
    );
}

#[test]
fn a_layer_that_leads_out_is_refused_with_its_name() {
    let bench = Bench::new();
    let tar = TarBuilder::default().file("../evil", b"x");
    let digest = Digest::of(&Layer::gzip(tar.clone().end()).blob);
    let source = bench.layout("v1", tar);
    assert_eq!(
        bench.refused(&source),
        format!(
            "cannot unpack layer {digest} of oci:TMP/layout: entry `../evil` has `..` in its name: it would leave the layer"
        )
    );
}

#[test]
fn a_configuration_for_another_machine_is_refused() {
    let bench = Bench::new();
    let layers = [Layer::plain(TarBuilder::default().end())];
    let config = config_json(&layers, "{}").replace("amd64", "riscv64");
    let dir = layout_with_config(&bench.dir.path().join("layout"), "v1", &layers, &config);
    assert_eq!(
        bench.refused(&format!("oci:{}:v1", dir.display())),
        "cannot use oci:TMP/layout:v1: the image is for linux/riscv64; sandboxes run linux/amd64. Choose an image built for linux/amd64"
    );
}

#[test]
fn layers_and_configuration_must_agree() {
    let bench = Bench::new();
    let layers = [Layer::plain(TarBuilder::default().end()), Layer::plain(TarBuilder::default().end())];
    let config = config_json(&layers[..1], "{}");
    let dir = layout_with_config(&bench.dir.path().join("layout"), "v1", &layers, &config);
    assert_eq!(
        bench.refused(&format!("oci:{}:v1", dir.display())),
        "cannot use oci:TMP/layout:v1: the image's manifest lists 2 layers, its configuration 1"
    );
}
