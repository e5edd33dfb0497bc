//! The store through [`Images`]: what is kept, what is swept, and what a crash or a full disk leaves.

use std::fs;
use std::path::Path;

use super::super::Images;
use super::super::fixtures::{Layer, TarBuilder, layout, resolve};

fn two_layers() -> Vec<Layer> {
    let base = TarBuilder::default().dir("etc", 0o755).file("etc/os", b"one").dir("tmp", 0o1777).end();
    let top = TarBuilder::default().file("etc/app", b"two").file("tmp/x", b"three").end();
    vec![Layer::plain(base), Layer::gzip(top)]
}

fn image_in(dir: &Path) -> String {
    layout(&dir.join("layout"), "v1", &two_layers(), r#"{"Cmd":["/bin/sh"],"Env":["A=b"]}"#);
    format!("oci:{}:v1", dir.join("layout").display())
}

#[test]
fn an_image_is_taken_in_once_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let source = image_in(dir.path());
    let images = Images::open(&dir.path().join("data")).unwrap();
    let image = resolve(&images, &source).unwrap();
    assert_eq!(image.config.cmd, ["/bin/sh"]);
    assert_eq!(image.layers.len(), 2);
    assert_eq!(fs::read(image.layers[0].join("etc/os")).unwrap(), b"one");
    assert_eq!(fs::read(image.layers[1].join("etc/app")).unwrap(), b"two");
    assert_eq!(image.size_bytes, 11);
    let listed = images.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].reference.as_str(), listed[0].id, listed[0].layers), (source.as_str(), image.id, 2));
    let before = fs::metadata(&image.layers[0]).unwrap();
    let again = resolve(&images, &source).unwrap();
    let after = fs::metadata(&again.layers[0]).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(before.ino(), after.ino(), "the layer was unpacked again");
}
