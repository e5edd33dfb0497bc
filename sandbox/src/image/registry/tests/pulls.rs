//! Whole, broken and wrong images, and registries that do not answer.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::super::super::digest::Digest;
use super::super::super::fixtures::{full, small_tmpfs, tree};
use super::super::super::{Images, NoProgress};
use super::server::{Registry, free_port};
use super::{FirstBytes, pull, sample_layers, sample_layout};

/// Names in the store that are neither images nor locks.
fn leftovers(data: &Path) -> Vec<String> {
    tree(data).into_iter().filter(|path| !path.ends_with('/') && !path.ends_with("lock")).collect()
}

#[test]
fn an_image_is_pulled_once_and_then_found_without_the_registry() {
    let registry = Registry::start("");
    registry.push(&sample_layout(&registry.path("")), "team/app:1.0", &[]);
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let name = format!("{}/team/app:1.0", registry.host());
    let image = pull(&images, &name, Arc::new(NoProgress)).unwrap();
    assert_eq!(fs::read(image.layers[0].join("etc/os")).unwrap(), b"sample");
    assert_eq!(fs::metadata(image.layers[1].join("noise")).unwrap().len(), 700_000);
    assert_eq!(image.config.cmd, ["/bin/true"]);
    assert_eq!(image.reference, name);
    let kept = fs::read_dir(data.path().join("blobs/sha256")).unwrap().count();
    assert_eq!(kept, 2, "manifest and configuration; the layers are unpacked");
    assert_eq!(fs::read_dir(data.path().join("ingest")).unwrap().count(), 0);

    drop(registry);
    let again = pull(&images, &name, Arc::new(NoProgress)).unwrap();
    assert_eq!(again.id, image.id);
    let by_id = pull(&images, &image.id.short(), Arc::new(NoProgress)).unwrap();
    assert_eq!(by_id.layers, image.layers);
}

#[test]
fn a_pull_by_digest_checks_the_manifest() {
    let registry = Registry::start("");
    registry.push(&sample_layout(&registry.path("")), "app:1", &[]);
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let wrong = Digest::of(b"wrong");
    let name = format!("{}/app@{wrong}", registry.host());
    let error = pull(&images, &name, Arc::new(NoProgress)).unwrap_err();
    let host = registry.host();
    assert_eq!(
        full(&error),
        format!(
            "cannot pull {name}: registry {host} has no image app with the tag or digest {wrong}; check the spelling"
        )
    );
}

#[test]
fn docker_manifests_are_pulled_too() {
    let registry = Registry::start("");
    registry.push(&sample_layout(&registry.path("")), "app:v2s2", &["--format", "v2s2"]);
    let data = tempfile::tempdir().unwrap();
    let name = format!("{}/app:v2s2", registry.host());
    let image = pull(&Images::open(data.path()).unwrap(), &name, Arc::new(NoProgress)).unwrap();
    assert_eq!(image.layers.len(), 2);
}

#[test]
fn a_download_that_broke_off_is_continued() {
    let registry = Registry::start("");
    registry.push(&sample_layout(&registry.path("")), "app:1", &[]);
    let layer = &sample_layers()[1].blob;
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let partial = data.path().join("ingest").join(Digest::of(layer).hex());
    fs::write(&partial, &layer[..500_000]).unwrap();
    let progress = Arc::new(FirstBytes::default());
    let name = format!("{}/app:1", registry.host());
    pull(&images, &name, Arc::<FirstBytes>::clone(&progress)).unwrap();
    let first = progress.of(1).unwrap();
    assert!(first > 500_000, "began again at {first}");
    assert!(!partial.exists());
}

#[test]
fn a_damaged_beginning_is_thrown_away() {
    let registry = Registry::start("");
    registry.push(&sample_layout(&registry.path("")), "app:1", &[]);
    let layer = &sample_layers()[1].blob;
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let ingest = data.path().join("ingest").join(Digest::of(layer).hex());
    let name = format!("{}/app:1", registry.host());
    for beginning in [vec![0; 500_000], vec![0; layer.len()], vec![0; layer.len() + 1]] {
        fs::write(&ingest, beginning).unwrap();
        let image = pull(&images, &name, Arc::new(NoProgress)).unwrap();
        drop(image);
        images.remove(&name).unwrap();
    }
}

#[test]
fn a_layer_that_does_not_match_its_digest_is_refused() {
    let registry = Registry::start("");
    registry.push(&sample_layout(&registry.path("")), "app:1", &[]);
    let layer = sample_layers()[1].blob.clone();
    let digest = Digest::of(&layer);
    let mut damaged = layer;
    damaged[1000] ^= 0xff;
    fs::write(registry.blob(digest), &damaged).unwrap();
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let host = registry.host();
    let error = pull(&images, &format!("{host}/app:1"), Arc::new(NoProgress)).unwrap_err();
    assert_eq!(
        full(&error),
        format!(
            "cannot pull {host}/app:1: layer {digest} from registry {host} does not match its digest: it has {}; the registry's copy or the transfer is damaged, nothing of it was kept",
            Digest::of(&damaged)
        )
    );
    assert!(!data.path().join("ingest").join(digest.hex()).exists());
    assert!(images.list().unwrap().is_empty());
    drop(Images::open(data.path()).unwrap());
    let kept: Vec<String> = leftovers(data.path());
    assert!(kept.iter().all(|path| path.starts_with("blobs/")), "{kept:?}");
}

#[test]
fn a_layer_that_ends_early_is_refused() {
    let registry = Registry::start("");
    registry.push(&sample_layout(&registry.path("")), "app:1", &[]);
    let layer = sample_layers()[1].blob.clone();
    let digest = Digest::of(&layer);
    fs::write(registry.blob(digest), &layer[..300_000]).unwrap();
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let host = registry.host();
    let error = pull(&images, &format!("{host}/app:1"), Arc::new(NoProgress)).unwrap_err();
    assert_eq!(
        full(&error),
        format!(
            "cannot pull {host}/app:1: the download of {digest} from registry {host} broke off after 300000 of {} bytes: the registry has no more of it; run the command again to continue it",
            layer.len()
        )
    );
    // Once the registry is whole again, the next pull goes on.
    fs::write(registry.blob(digest), &layer).unwrap();
    pull(&images, &format!("{host}/app:1"), Arc::new(NoProgress)).unwrap();
}

#[test]
fn a_layer_that_is_longer_than_declared_is_refused() {
    let registry = Registry::start("");
    registry.push(&sample_layout(&registry.path("")), "app:1", &[]);
    let mut layer = sample_layers()[1].blob.clone();
    let (digest, declared) = (Digest::of(&layer), layer.len());
    layer.push(0);
    fs::write(registry.blob(digest), &layer).unwrap();
    let data = tempfile::tempdir().unwrap();
    let host = registry.host();
    let images = Images::open(data.path()).unwrap();
    let error = pull(&images, &format!("{host}/app:1"), Arc::new(NoProgress)).unwrap_err();
    assert_eq!(
        full(&error),
        format!(
            "cannot pull {host}/app:1: layer {digest} from registry {host} is longer than the {declared} bytes that its manifest declares"
        )
    );
    assert_eq!(fs::read_dir(data.path().join("ingest")).unwrap().count(), 0);
}

#[test]
fn unknown_images_and_registries_are_told_apart() {
    let registry = Registry::start("");
    let host = registry.host();
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let error = pull(&images, &format!("{host}/nothing:here"), Arc::new(NoProgress)).unwrap_err();
    assert_eq!(
        full(&error),
        format!(
            "cannot pull {host}/nothing:here: registry {host} has no image nothing with the tag or digest here; check the spelling"
        )
    );
    let nobody = format!("127.0.0.1:{}", free_port());
    let error = pull(&images, &format!("{nobody}/app"), Arc::new(NoProgress)).unwrap_err();
    assert_eq!(
        full(&error),
        format!(
            "cannot pull {nobody}/app:latest: registry {nobody} cannot be reached: Connection refused (os error 111); check its name, the network and, behind a proxy, the variable HTTPS_PROXY"
        )
    );
    assert_eq!(leftovers(data.path()), [""; 0]);
}

#[test]
fn a_layer_that_cannot_fit_is_refused_before_the_download() {
    let registry = Registry::start("");
    registry.push(&sample_layout(&registry.path("")), "app:1", &[]);
    let host = registry.host();
    let (_mount, data) = small_tmpfs("400k");
    let images = Images::open(&data).unwrap();
    let message = full(&pull(&images, &format!("{host}/app:1"), Arc::new(NoProgress)).unwrap_err());
    let layer = &sample_layers()[1].blob;
    let start = format!("cannot pull {host}/app:1: layer {} needs {} bytes, but only ", Digest::of(layer), layer.len());
    assert!(message.starts_with(&start), "{message}");
    assert!(
        message.ends_with("; free some space there, or set BULKHEAD_DATA to a directory on a larger disk"),
        "{message}"
    );
}

#[test]
fn two_pulls_at_once_share_the_work() {
    let registry = Registry::start("");
    registry.push(&sample_layout(&registry.path("")), "app:1", &[]);
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let name = format!("{}/app:1", registry.host());
    std::thread::scope(|scope| {
        let pulls: Vec<_> =
            (0..4).map(|_| scope.spawn(|| pull(&images, &name, Arc::new(NoProgress)).map(|image| image.id))).collect();
        let ids: Vec<_> = pulls.into_iter().map(|pull| pull.join().unwrap().unwrap()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    });
    assert_eq!(images.list().unwrap().len(), 1);
}
