//! Random archives: no panic, and nothing outside the layer's directory.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::super::fixtures::{Raw, TarBuilder};
use super::Arena;

/// Few names, so that entries meet; some of them meant to lead out.
fn name() -> impl Strategy<Value = String> {
    let part =
        prop::sample::select(vec!["a", "b", "c", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh...", "/"]);
    vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

fn kind() -> impl Strategy<Value = u8> {
    prop::sample::select(b"01234567LKxgS\0".to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn entries_in_any_order_stay_inside(
        entries in vec((name(), kind(), name(), 0_u32..0o10000, vec(any::<u8>(), 0..40), prop::option::of(0_u64..2000)), 1..25)
    ) {
        let mut tar = TarBuilder::default();
        for (name, kind, link, mode, data, declared) in &entries {
            let (name, link) = (name.as_bytes(), link.as_bytes());
            let declared = if *kind == b'0' { *declared } else { None };
            tar = tar.raw(&Raw { name, kind: *kind, mode: *mode, link, data, declared, ..Raw::default() });
        }
        let arena = Arena::new();
        let _ = arena.unpack(&tar.end());
        prop_assert_eq!(arena.outside(), ["blob", "layer"]);
    }

    #[test]
    fn damaged_archives_do_not_panic(flips in vec((0_usize..6000, any::<u8>()), 1..30), cut in 0_usize..6000) {
        let mut tar = TarBuilder::default()
            .dir("d", 0o755)
            .pax(&[("path", b"d/long"), ("SCHILY.xattr.user.a", b"b"), ("mtime", b"1.5")])
            .file("d/file", &[1; 700])
            .symlink("s", "d")
            .hard_link("s/h", "d/long")
            .file("d/.wh.x", b"")
            .end();
        for (at, value) in flips {
            if let Some(byte) = tar.get_mut(at) {
                *byte = value;
            }
        }
        tar.truncate(cut.max(512));
        // A header is believed only with a good checksum: make it so, to get further in.
        for block in tar.chunks_exact_mut(512) {
            if block[257..262] == *b"ustar" {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let arena = Arena::new();
        let _ = arena.unpack(&tar);
        prop_assert_eq!(arena.outside(), ["blob", "layer"]);
    }

    #[test]
    fn any_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..3000)) {
        let arena = Arena::new();
        let _ = arena.unpack(&bytes);
        prop_assert_eq!(arena.outside(), ["blob", "layer"]);
    }
}
