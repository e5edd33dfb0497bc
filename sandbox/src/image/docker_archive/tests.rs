//! Archives as `skopeo` and dockers old and new write them, and as they should not be.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::super::fixtures::{Layer, TarBuilder, config_json, full, gzip, layout, resolve};
use super::super::{Digest, Images};

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

    fn archive(&self, bytes: &[u8]) -> String {
        let file = self.file();
        fs::write(&file, bytes).unwrap();
        format!("docker-archive:{}", file.display())
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("image.tar")
    }

    fn refused(&self, source: &str) -> String {
        let message = full(&resolve(&self.images, source).unwrap_err());
        assert!(self.images.list().unwrap().is_empty());
        message.replace(self.dir.path().to_str().unwrap(), "TMP")
    }
}

fn layers() -> [Layer; 2] {
    [
        Layer::plain(TarBuilder::default().file("a", b"below").end()),
        Layer::gzip(TarBuilder::default().file("b", b"above").end()),
    ]
}

#[test]
fn skopeos_archives_are_read() {
    for kind in ["docker-archive", "oci-archive"] {
        let bench = Bench::new();
        let dir = layout(&bench.dir.path().join("layout"), "v1", &layers(), "{}");
        let target = format!("{kind}:{}:example/app:v1", bench.file().display());
        let mut command = Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--quiet", &format!("oci:{}:v1", dir.display()), &target]);
        let output = command.output().expect("skopeo: apt-get install skopeo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let image = resolve(&bench.images, &format!("docker-archive:{}", bench.file().display())).unwrap();
        assert_eq!(fs::read(image.layers[1].join("b")).unwrap(), b"above", "{kind}");
    }
}

/// `docker save` before version 25: a directory for each layer, shared ones as symlinks.
#[test]
fn an_old_dockers_archive_is_read() {
    let bench = Bench::new();
    let [below, above] = layers();
    let config = config_json(&[below, above], "{}");
    let [below, above] = layers();
    let manifest = r#"[{"Config":"c.json","RepoTags":["busybox:1"],"Layers":["x/layer.tar","y/layer.tar"]}]"#;
    let source = bench.archive(
        &TarBuilder::default()
            .dir("x/", 0o755)
            .symlink("x/layer.tar", "../z/layer.tar")
            .file("z/layer.tar", &below.blob)
            .file("y/layer.tar", &above.blob)
            .file("c.json", config.as_bytes())
            .file("manifest.json", manifest.as_bytes())
            .file("repositories", b"{}")
            .end(),
    );
    let image = resolve(&bench.images, &source).unwrap();
    assert_eq!(image.id, Digest::of(config.as_bytes()));
    assert_eq!(fs::read(image.layers[0].join("a")).unwrap(), b"below");
    assert!(resolve(&bench.images, &format!("{source}:busybox:1")).is_ok());
    assert!(resolve(&bench.images, &format!("{source}:docker.io/library/busybox:1")).is_ok());
}

#[test]
fn a_missing_image_or_part_is_named() {
    let bench = Bench::new();
    let entry = |tag: &str| format!(r#"{{"Config":"c.json","RepoTags":["{tag}"],"Layers":["gone.tar"]}}"#);
    let archive = |entries: &str| {
        let manifest = format!("[{entries}]");
        TarBuilder::default().file("c.json", b"{}").file("manifest.json", manifest.as_bytes()).end()
    };
    let source = bench.archive(&archive(&entry("a:1")));
    assert_eq!(
        bench.refused(&format!("{source}:b:2")),
        "cannot use docker-archive:TMP/image.tar:b:2: TMP/image.tar does not hold `b:2`; it holds a:1"
    );
    assert_eq!(
        bench.refused(&source),
        "cannot use docker-archive:TMP/image.tar: TMP/image.tar cannot be read as a docker archive: its manifest.json names `gone.tar`, which it does not hold"
    );
    let source = bench.archive(&archive(&format!("{},{}", entry("a:1"), entry("b:2"))));
    assert_eq!(
        bench.refused(&source),
        "cannot use docker-archive:TMP/image.tar: TMP/image.tar holds several images, name one of them: a:1, b:2"
    );
}

#[test]
fn what_is_no_archive_is_told() {
    let bench = Bench::new();
    let nowhere = format!("docker-archive:{}/nowhere.tar", bench.dir.path().display());
    assert_eq!(
        bench.refused(&nowhere),
        "cannot use docker-archive:TMP/nowhere.tar: cannot read TMP/nowhere.tar: No such file or directory (os error 2)"
    );
    let source = bench.archive(&TarBuilder::default().file("something", b"else").end());
    assert_eq!(
        bench.refused(&source),
        "cannot use docker-archive:TMP/image.tar: TMP/image.tar is not a docker archive: it has no manifest.json. `docker save -o FILE IMAGE` makes one"
    );
    let source = bench.archive(&gzip(&TarBuilder::default().end()));
    assert_eq!(
        bench.refused(&source),
        "cannot use docker-archive:TMP/image.tar: TMP/image.tar is compressed with gzip; decompress it first, for example with `gunzip -k TMP/image.tar`"
    );
    let source = bench.archive(&[b'<'; 4000]);
    assert_eq!(
        bench.refused(&source),
        "cannot use docker-archive:TMP/image.tar: TMP/image.tar cannot be read as a docker archive: it is not a valid tar archive: a header's checksum is wrong (at byte 512)"
    );
    let source = bench.archive(&TarBuilder::default().file("manifest.json", &[b' '; 4000]).cut()[..3000]);
    assert!(bench.refused(&source).ends_with("the data is cut short"));
}

#[test]
fn hostile_archives_do_not_reach_outside() {
    let bench = Bench::new();
    let manifest = r#"[{"Config":"../../etc/passwd","Layers":["s"]}]"#;
    let source = bench.archive(&TarBuilder::default().file("manifest.json", manifest.as_bytes()).end());
    assert!(bench.refused(&source).ends_with("its manifest.json names `../../etc/passwd`, which it does not hold"));
    let manifest = r#"[{"Config":"s","Layers":["s"]}]"#;
    for target in ["/etc/passwd", "../../../etc/passwd", "s", "t"] {
        let tar =
            TarBuilder::default().symlink("s", target).symlink("t", "s").file("manifest.json", manifest.as_bytes());
        assert!(bench.refused(&bench.archive(&tar.end())).ends_with("names `s`, which it does not hold"), "{target}");
    }
}

#[test]
fn a_claim_of_ten_terabytes_ends_with_the_file() {
    let bench = Bench::new();
    let huge = super::super::fixtures::Raw { name: b"huge", declared: Some(10 << 40), ..Default::default() };
    let source = bench.archive(&TarBuilder::default().raw(&huge).end());
    assert_eq!(
        bench.refused(&source),
        "cannot use docker-archive:TMP/image.tar: TMP/image.tar cannot be read as a docker archive: it ends in the middle of `huge`: the data is cut short"
    );
}

proptest::proptest! {
    #[test]
    fn damaged_archives_are_read_or_refused(flips in proptest::collection::vec((0_usize..5000, proptest::prelude::any::<u8>()), 0..20)) {
        let manifest = r#"[{"Config":"s","RepoTags":null,"Layers":["d/l"]}]"#;
        let mut tar = TarBuilder::default()
            .pax(&[("path", b"manifest.json")])
            .file("x", manifest.as_bytes())
            .symlink("s", "d/c")
            .file("d/c", b"{}")
            .file("d/l", b"layer")
            .end();
        for (at, value) in flips {
            if let Some(byte) = tar.get_mut(at) {
                *byte = value;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.tar");
        fs::write(&file, tar).unwrap();
        let _ = super::find(&file, None);
    }
}
