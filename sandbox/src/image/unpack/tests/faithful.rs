//! What an honest layer becomes: attributes, links, whiteouts, and the rules for entries that meet.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::super::super::fixtures::{Raw, TarBuilder, tree};
use super::{Arena, xattr};

fn is_whiteout(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

#[test]
fn owner_mode_times_and_attributes_are_kept() {
    let arena = Arena::new();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let program = Raw { name: b"bin/ping", mode: 0o4755, uid: 1000, gid: 2000, data: b"elf", ..Raw::default() };
    let tar = TarBuilder::default()
        .dir("bin", 0o2750)
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"a=b\nc"),
            ("mtime", b"1234567890.5"),
        ])
        .raw(&program)
        .symlink("ln", "bin/ping")
        .end();
    let (stats, _) = arena.unpack(&tar).unwrap();
    let program = arena.layer().join("bin/ping");
    let metadata = fs::metadata(&program).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o4755, 1000, 2000));
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_234_567_890, 500_000_000));
    assert_eq!(xattr(&program, "security.capability").unwrap(), capability);
    assert_eq!(xattr(&program, "user.note").unwrap(), b"a=b\nc");
    let dir = fs::metadata(arena.layer().join("bin")).unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o2750, 1_700_000_000), "times survive what is made inside");
    assert_eq!(fs::symlink_metadata(arena.layer().join("ln")).unwrap().mtime(), 1_700_000_000);
    assert_eq!((stats.entries, stats.bytes, stats.skipped_xattrs), (3, 3, 0));
}

#[test]
fn hard_links_share_their_file() {
    let arena = Arena::new();
    let tar = TarBuilder::default()
        .file("a", b"data")
        .hard_link("d/b", "/a")
        .symlink("s", "nowhere")
        .hard_link("t", "s")
        .end();
    arena.unpack(&tar).unwrap();
    let inode = |name: &str| fs::symlink_metadata(arena.layer().join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("d/b"));
    assert_eq!(inode("s"), inode("t"));
}

#[test]
fn whiteouts_become_what_the_overlay_knows() {
    let arena = Arena::new();
    let tar = TarBuilder::default()
        .file("etc/.wh.motd", b"")
        .file("var/cache/.wh..wh..opq", b"")
        .file("var/cache/new", b"x")
        .file(".wh..wh.plnk", b"")
        .end();
    let (stats, _) = arena.unpack(&tar).unwrap();
    assert!(is_whiteout(&arena.layer().join("etc/motd")));
    assert!(is_opaque(&arena.layer().join("var/cache")));
    assert_eq!(tree(&arena.layer()), ["etc/", "etc/motd", "var/", "var/cache/", "var/cache/new"]);
    assert_eq!((stats.whiteouts, stats.skipped_aufs, stats.opaque_root), (2, 1, false));
}

#[test]
fn an_opaque_root_is_reported() {
    let arena = Arena::new();
    let (stats, _) = arena.unpack(&TarBuilder::default().file(".wh..wh..opq", b"").file("a", b"").end()).unwrap();
    assert!(stats.opaque_root);
}

/// OCI image-spec 1.1, layer.md, "Whiteouts": they apply to lower layers only, never to the same one.
#[test]
fn a_whiteout_beside_a_real_entry_hides_only_what_lies_below() {
    for order in [true, false] {
        let arena = Arena::new();
        let real = |tar: TarBuilder| tar.file("f", b"real").dir("d", 0o755).file("d/in", b"real").file("e/in", b"real");
        let hidden = |tar: TarBuilder| tar.file(".wh.f", b"").file(".wh.d", b"").file(".wh.e", b"");
        let tar = if order { hidden(real(TarBuilder::default())) } else { real(hidden(TarBuilder::default())) };
        arena.unpack(&tar.end()).unwrap();
        assert_eq!(fs::read(arena.layer().join("f")).unwrap(), b"real");
        assert_eq!(fs::read(arena.layer().join("d/in")).unwrap(), b"real");
        assert_eq!(fs::read(arena.layer().join("e/in")).unwrap(), b"real");
        assert!(is_opaque(&arena.layer().join("d")), "order {order}");
        assert!(is_opaque(&arena.layer().join("e")), "order {order}");
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let arena = Arena::new();
    let tar = TarBuilder::default()
        .file("twice", b"one")
        .file("twice", b"two")
        .dir("dir", 0o700)
        .file("dir/kept", b"x")
        .dir("dir", 0o711)
        .dir("was-dir", 0o755)
        .file("was-dir/gone", b"x")
        .file("was-dir", b"file")
        .file("was-file", b"x")
        .dir("was-file", 0o755)
        .file("was-file/in", b"y")
        .end();
    arena.unpack(&tar).unwrap();
    assert_eq!(fs::read(arena.layer().join("twice")).unwrap(), b"two");
    assert_eq!(fs::metadata(arena.layer().join("dir")).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(fs::read(arena.layer().join("was-dir")).unwrap(), b"file");
    assert_eq!(tree(&arena.layer()), ["dir/", "dir/kept", "twice", "was-dir", "was-file/", "was-file/in"]);
}

#[test]
fn replacing_a_file_leaves_its_other_name_alone() {
    let arena = Arena::new();
    let tar = TarBuilder::default().file("a", b"old").hard_link("b", "a").file("a", b"new").end();
    arena.unpack(&tar).unwrap();
    assert_eq!(fs::read(arena.layer().join("b")).unwrap(), b"old");
}

#[test]
fn gnu_long_names_and_old_directories_are_read() {
    let arena = Arena::new();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let named = format!("{long}\0");
    let header = Raw { name: b"././@LongLink", kind: b'L', data: named.as_bytes(), ..Raw::default() };
    let old_dir = Raw { name: b"old/", kind: 0, mode: 0o755, ..Raw::default() };
    let tar = TarBuilder::default().raw(&header).file("cut", b"x").raw(&old_dir).end();
    arena.unpack(&tar).unwrap();
    assert_eq!(fs::read(arena.layer().join(long)).unwrap(), b"x");
    assert!(arena.layer().join("old").is_dir());
}

#[test]
fn directories_without_an_entry_take_what_lies_below() {
    let (below, middle, top) = (Arena::new(), Arena::new(), Arena::new());
    let sticky = Raw { name: b"tmp", kind: b'5', mode: 0o1777, uid: 7, mtime: 99, ..Raw::default() };
    below
        .unpack(
            &TarBuilder::default()
                .raw(&sticky)
                .dir("own", 0o700)
                .dir("hid", 0o711)
                .dir("opq", 0o701)
                .dir("opq/sub", 0o702)
                .end(),
        )
        .unwrap();
    middle.unpack(&TarBuilder::default().file(".wh.hid", b"").end()).unwrap();
    let tar = TarBuilder::default()
        .file("tmp/x", b"")
        .dir("own", 0o750)
        .file("own/x", b"")
        .file("hid/x", b"")
        .file("new/x", b"")
        .file("opq/.wh..wh..opq", b"")
        .file("opq/sub/x", b"")
        .end();
    let (_, implicit) = top.unpack(&tar).unwrap();
    implicit.settle(&top.layer(), &[below.layer(), middle.layer()]).unwrap();
    let of = |name: &str| {
        let metadata = fs::metadata(top.layer().join(name)).unwrap();
        (metadata.mode() & 0o7777, metadata.uid(), metadata.mtime())
    };
    assert_eq!(of("tmp"), (0o1777, 7, 99));
    assert_eq!(of("own").0, 0o750);
    assert_eq!(of("hid").0, 0o755, "a whiteout between hides the model");
    assert_eq!(of("new").0, 0o755);
    assert_eq!((of("opq").0, of("opq/sub").0), (0o701, 0o755), "opaque hides the contents, not the directory");
}
