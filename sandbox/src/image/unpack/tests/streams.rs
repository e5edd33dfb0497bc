//! Compression, digests, and streams that end early, late or never.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::super::super::digest::Digest;
use super::super::super::fixtures::{TarBuilder, full, gzip, tree};
use super::super::{LayerBlob, Observer, unpack};
use super::Arena;

fn tar() -> Vec<u8> {
    TarBuilder::default().file("a", &[7; 5000]).end()
}

#[test]
fn gzip_zstd_and_plain_layers_are_unpacked() {
    let zstd = zstd::encode_all(tar().as_slice(), 3).unwrap();
    let two_members = [gzip(&tar()[..700]), gzip(&tar()[700..])].concat();
    for blob in [tar(), gzip(&tar()), zstd, two_members] {
        let arena = Arena::new();
        arena.unpack_blob(&blob, Digest::of(&tar()), Some(Digest::of(&blob))).unwrap();
        assert_eq!(tree(&arena.layer()), ["a"]);
    }
}

#[test]
fn other_compressions_are_named() {
    let error = Arena::new().unpack(b"\xfd7zXZ\0rest").unwrap_err();
    assert_eq!(full(&error), "it is compressed with xz, which images may not use; build it again with gzip or zstd");
}

#[test]
fn a_wrong_digest_is_refused() {
    let other = Digest::of(b"other");
    let error = Arena::new().unpack_blob(&tar(), other, None).unwrap_err();
    let (actual, packed) = (Digest::of(&tar()), gzip(&tar()));
    assert_eq!(
        full(&error),
        format!("its diff id does not match: expected {other}, got {actual}; the image was damaged or tampered with")
    );
    let error = Arena::new().unpack_blob(&packed, actual, Some(other)).unwrap_err();
    let actual = Digest::of(&packed);
    assert_eq!(
        full(&error),
        format!("its digest does not match: expected {other}, got {actual}; the image was damaged or tampered with")
    );
}

#[test]
fn what_follows_the_archive_counts_for_the_digests() {
    let mut longer = tar();
    longer.extend_from_slice(&[1; 100_000]);
    let blob = gzip(&longer);
    Arena::new().unpack_blob(&blob, Digest::of(&longer), Some(Digest::of(&blob))).unwrap();
    assert!(Arena::new().unpack_blob(&blob, Digest::of(&tar()), None).is_err());
}

#[test]
fn truncated_compression_is_refused() {
    let blob = gzip(&tar());
    let cut = &blob[..blob.len() - 4];
    let error = Arena::new().unpack_blob(cut, Digest::of(&tar()), None).unwrap_err();
    let message = full(&error);
    assert!(message.starts_with("its data is damaged or cut short: "), "{message}");
    let cut = &blob[..30];
    let message = full(&Arena::new().unpack_blob(cut, Digest::of(&tar()), None).unwrap_err());
    assert!(message.contains("cut short"), "{message}");
    let zstd = zstd::encode_all(tar().as_slice(), 3).unwrap();
    let message = full(&Arena::new().unpack_blob(&zstd[..zstd.len() - 2], Digest::of(&tar()), None).unwrap_err());
    assert!(message.contains("cut short"), "{message}");
}

#[test]
fn damaged_compression_is_refused() {
    let mut blob = gzip(&TarBuilder::default().file("a", &(0..=255).cycle().take(90_000).collect::<Vec<u8>>()).end());
    let middle = blob.len() / 2;
    blob[middle] ^= 0xff;
    let error = Arena::new().unpack_blob(&blob, Digest::of(b""), None).unwrap_err();
    assert!(!full(&error).is_empty());
}

/// A zstd frame of zeros: 5 GiB from some 160 KiB. Nothing of it reaches the disk, since it follows the archive's end.
#[test]
fn a_decompression_bomb_is_stopped() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let zeros = vec![0; 16 << 20];
    encoder.write_all(&tar()).unwrap();
    for _ in 0..320 {
        encoder.write_all(&zeros).unwrap();
    }
    let blob = encoder.finish().unwrap();
    let message = full(&Arena::new().unpack_blob(&blob, Digest::of(b""), None).unwrap_err());
    assert!(
        message.contains(" compressed ones, more than 200 times as many: this looks like a decompression bomb"),
        "{message}"
    );
}

#[test]
fn a_cancelled_unpacking_stops() {
    let arena = Arena::new();
    let file = arena.dir.path().join("blob");
    std::fs::write(&file, tar()).unwrap();
    let blob = LayerBlob { file, offset: 0, size_bytes: tar().len() as u64, digest: None };
    let observer = Observer { cancelled: &AtomicBool::new(true), read: &|_| {} };
    let error = unpack(&blob, Digest::of(&tar()), &arena.layer(), Path::new("/store"), &observer).unwrap_err();
    assert_eq!(error.to_string(), "unpacking was interrupted");
}
