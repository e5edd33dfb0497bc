//! Each hostile layer with the exact words of its refusal, or with what is made of it instead.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use super::super::super::fixtures::{Raw, TarBuilder, tree};
use super::{Arena, refused};

#[test]
fn a_name_with_dot_dot_is_refused() {
    let tar = TarBuilder::default().file("../evil", b"x").end();
    assert_eq!(refused(&tar), "entry `../evil` has `..` in its name: it would leave the layer");
    let tar = TarBuilder::default().dir("a", 0o755).file("a/../../evil", b"x").end();
    assert_eq!(refused(&tar), "entry `a/../../evil` has `..` in its name: it would leave the layer");
}

#[test]
fn a_pax_name_with_dot_dot_is_refused() {
    let tar = TarBuilder::default().pax(&[("path", b"../evil")]).file("good", b"x").end();
    assert_eq!(refused(&tar), "entry `../evil` has `..` in its name: it would leave the layer");
}

#[test]
fn an_absolute_name_counts_from_the_layers_root() {
    let arena = Arena::new();
    arena.unpack(&TarBuilder::default().file("/etc/absolute", b"x").end()).unwrap();
    assert_eq!(fs::read(arena.layer().join("etc/absolute")).unwrap(), b"x");
    assert!(!fs::exists("/etc/absolute").unwrap());
}

#[test]
fn a_symlink_that_points_outside_is_kept_and_never_followed() {
    let arena = Arena::new();
    let outside = arena.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.to_str().unwrap().to_owned();
    let tar = TarBuilder::default().symlink("escape", &target).end();
    arena.unpack(&tar).unwrap();
    assert_eq!(fs::read_link(arena.layer().join("escape")).unwrap(), outside);

    let arena = Arena::new();
    let tar = TarBuilder::default().symlink("escape", &target).file("escape/evil", b"x").end();
    assert_eq!(
        arena.unpack(&tar).unwrap_err().to_string(),
        "entry `escape/evil` lies below the symlink `escape`, which leads to no directory of this layer"
    );
    assert_eq!(tree(&outside), [""; 0]);
}

#[test]
fn a_directory_beyond_a_symlink_is_not_reached_either() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("sub")).unwrap();
    fs::write(outside.path().join("sub/secret"), b"secret").unwrap();
    let escape = || TarBuilder::default().symlink("escape", outside.path().to_str().unwrap());
    assert_eq!(
        refused(&escape().file("escape/sub/evil", b"x").end()),
        "entry `escape/sub/evil` lies below the symlink `escape`, which leads to no directory of this layer"
    );
    assert_eq!(
        refused(&escape().file("escape/sub/.wh..wh..opq", b"").end()),
        "entry `escape/sub/.wh..wh..opq` lies below the symlink `escape`, which leads to no directory of this layer"
    );
    assert_eq!(
        refused(&escape().hard_link("mine", "escape/sub/secret").end()),
        "entry `mine` is a hard link to `escape/sub/secret`, which this layer does not have"
    );
    assert_eq!(tree(outside.path()), ["sub/", "sub/secret"]);
}

#[test]
fn a_relative_symlink_that_points_outside_stays_inside() {
    let arena = Arena::new();
    let tar = TarBuilder::default()
        .dir("inside", 0o755)
        .symlink("up", "../../../../inside")
        .file("up/file", b"x")
        .symlink("top", "..")
        .file("top/at-root", b"y")
        .end();
    arena.unpack(&tar).unwrap();
    assert_eq!(fs::read(arena.layer().join("inside/file")).unwrap(), b"x");
    assert_eq!(fs::read(arena.layer().join("at-root")).unwrap(), b"y");
    assert_eq!(arena.outside(), ["blob", "layer"]);
}

#[test]
fn a_file_replaces_a_symlink_instead_of_writing_through_it() {
    let arena = Arena::new();
    let victim = arena.dir.path().join("victim");
    fs::write(&victim, b"untouched").unwrap();
    let tar = TarBuilder::default().symlink("x", victim.to_str().unwrap()).file("x", b"mine").end();
    arena.unpack(&tar).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"untouched");
    assert_eq!(fs::read(arena.layer().join("x")).unwrap(), b"mine");
}

#[test]
fn symlinks_in_a_circle_are_refused() {
    let tar = TarBuilder::default().symlink("a", "b").symlink("b", "a").file("a/x", b"").end();
    assert_eq!(refused(&tar), "entry `a/x` lies below `a`, where symlinks lead in a circle");
}

#[test]
fn a_hard_link_out_of_the_layer_is_refused() {
    let tar = TarBuilder::default().hard_link("x", "../../etc/passwd").end();
    assert_eq!(refused(&tar), "entry `x` is a hard link to `../../etc/passwd`: it would leave the layer");
    // An absolute target counts from the layer's root, where there is none.
    let tar = TarBuilder::default().hard_link("x", "/etc/passwd").end();
    assert_eq!(refused(&tar), "entry `x` is a hard link to `/etc/passwd`, which this layer does not have");
    let tar = TarBuilder::default().symlink("etc", "/etc").hard_link("x", "etc/passwd").end();
    assert_eq!(refused(&tar), "entry `x` is a hard link to `etc/passwd`, which this layer does not have");
}

#[test]
fn a_hard_link_without_a_target_is_refused() {
    let tar = TarBuilder::default().hard_link("x", "missing").end();
    assert_eq!(refused(&tar), "entry `x` is a hard link to `missing`, which this layer does not have");
    let tar = TarBuilder::default().file(".wh.gone", b"").hard_link("x", "gone").end();
    assert_eq!(refused(&tar), "entry `x` is a hard link to `gone`, which this layer does not have");
    let tar = TarBuilder::default().dir("d", 0o755).hard_link("x", "d").end();
    assert_eq!(refused(&tar), "entry `x` is a hard link to the directory `d`");
    let tar = TarBuilder::default().hard_link("x", ".").end();
    assert_eq!(refused(&tar), "entry `x` is a hard link to `.`, which this layer does not have");
}

#[test]
fn a_hard_link_to_itself_changes_nothing() {
    let arena = Arena::new();
    arena.unpack(&TarBuilder::default().file("x", b"data").hard_link("x", "./x").end()).unwrap();
    assert_eq!(fs::read(arena.layer().join("x")).unwrap(), b"data");
}

#[test]
fn a_hard_link_that_replaces_its_targets_directory_is_refused() {
    let tar = TarBuilder::default().file("d/x", b"data").hard_link("d", "d/x").end();
    assert_eq!(refused(&tar), "entry `d` is a hard link to `d/x`, which this layer does not have");
}

#[test]
fn device_nodes_are_counted_and_not_made() {
    let arena = Arena::new();
    let device = |name: &'static [u8], kind| Raw { name, kind, ..Raw::default() };
    let tar = TarBuilder::default()
        .raw(&device(b"dev/sda", b'4'))
        .raw(&device(b"dev/null", b'3'))
        .file("dev/console", b"")
        .end();
    let (stats, _) = arena.unpack(&tar).unwrap();
    assert_eq!((stats.skipped_devices, stats.entries), (2, 1));
    assert_eq!(tree(&arena.layer()), ["dev/", "dev/console"]);
}

#[test]
fn a_name_of_255_bytes_is_made_and_one_of_256_refused() {
    let arena = Arena::new();
    let name = "n".repeat(255);
    arena.unpack(&TarBuilder::default().pax(&[("path", name.as_bytes())]).file("short", b"x").end()).unwrap();
    assert_eq!(fs::read(arena.layer().join(&name)).unwrap(), b"x");

    let name = "n".repeat(256);
    let tar = TarBuilder::default().pax(&[("path", name.as_bytes())]).file("short", b"x").end();
    let shown = "n".repeat(120);
    assert_eq!(refused(&tar), format!("entry `{shown}…` has a name of 256 bytes; Linux allows 255"));
}

#[test]
fn a_path_that_is_too_long_or_too_deep_is_refused() {
    let long = format!("{}/", "n".repeat(250)).repeat(17);
    let tar = TarBuilder::default().pax(&[("path", long.as_bytes())]).file("short", b"x").end();
    assert!(refused(&tar).ends_with("has a path of 4266 bytes; Linux allows 4095"));
    let deep = "d/".repeat(257);
    let tar = TarBuilder::default().pax(&[("path", deep.as_bytes())]).file("short", b"x").end();
    assert!(refused(&tar).ends_with("lies more than 256 directories deep"));
}

#[test]
fn symlinks_do_not_make_a_tree_deeper_than_its_limit() {
    let deep = "d/".repeat(200);
    let further = format!("s/{deep}x");
    let tar = TarBuilder::default()
        .pax(&[("path", deep.as_bytes())])
        .dir("deep", 0o755)
        .pax(&[("linkpath", deep.as_bytes())])
        .symlink("s", "deep")
        .pax(&[("path", further.as_bytes())])
        .file("further", b"x")
        .end();
    let message = refused(&tar);
    assert!(message.ends_with("lies more than 256 directories deep"), "{message}");
}

#[test]
fn a_whiteout_of_a_parent_is_refused() {
    let tar = TarBuilder::default().file("a/.wh...", b"").end();
    assert_eq!(
        refused(&tar),
        "entry `a/.wh...` would remove its parent directory: a whiteout names one entry of its own directory"
    );
    let tar = TarBuilder::default().file("a/.wh..", b"").end();
    assert_eq!(
        refused(&tar),
        "entry `a/.wh..` would remove its own directory: a whiteout names one entry of its own directory"
    );
    let tar = TarBuilder::default().file("a/.wh.", b"").end();
    assert_eq!(refused(&tar), "entry `a/.wh.` would remove nothing: a whiteout names one entry of its own directory");
    let tar = TarBuilder::default().file(".wh.../x/.wh...", b"").end();
    assert!(refused(&tar).starts_with("entry `.wh.../x/.wh...` would remove its parent directory"));
}

#[test]
fn a_claim_of_ten_terabytes_is_refused_before_anything_is_written() {
    let huge = Raw { name: b"huge", declared: Some(10 << 40), data: b"little", ..Raw::default() };
    let message = refused(&TarBuilder::default().raw(&huge).end());
    assert!(
        message.starts_with("entry `huge` declares 10995116277760 bytes, but only ")
            && message.ends_with(
                " are free in /store; free some space there, or set BULKHEAD_DATA to a directory on a larger disk"
            ),
        "{message}"
    );
    let size = (10_u64 << 40).to_string();
    let tar = TarBuilder::default().pax(&[("size", size.as_bytes())]).file("huge", b"little").end();
    assert!(refused(&tar).starts_with("entry `huge` declares 10995116277760 bytes"));
}

#[test]
fn claims_of_huge_names_and_headers_are_refused_unread() {
    let raw = |kind, declared| Raw { name: b"long", kind, declared: Some(declared), ..Raw::default() };
    assert_eq!(
        refused(&TarBuilder::default().raw(&raw(b'L', 10 << 40)).end()),
        "it is not a valid tar archive: a long name of 10995116277760 bytes; at most 16384 are accepted (at byte 512)"
    );
    assert_eq!(
        refused(&TarBuilder::default().raw(&raw(b'x', 1 << 30)).end()),
        "it is not a valid tar archive: a PAX header of 1073741824 bytes; at most 1048576 are accepted (at byte 512)"
    );
}

#[test]
fn sparse_files_and_unknown_types_are_refused() {
    let sparse = Raw { name: b"s", kind: b'S', ..Raw::default() };
    assert_eq!(
        refused(&TarBuilder::default().raw(&sparse).end()),
        "entry `s` is a sparse file of GNU tar, which is not supported in a layer"
    );
    let tar = TarBuilder::default().pax(&[("GNU.sparse.major", b"1")]).file("s", b"").end();
    assert_eq!(refused(&tar), "entry `s` is a sparse file of GNU tar, which is not supported in a layer");
    let volume = Raw { name: b"v", kind: b'V', ..Raw::default() };
    assert_eq!(
        refused(&TarBuilder::default().raw(&volume).end()),
        "entry `v` is of tar type `V`, which is not supported in a layer"
    );
}

#[test]
fn a_truncated_archive_is_refused() {
    let whole = TarBuilder::default().file("a", &[7; 2000]).cut();
    assert_eq!(refused(&whole[..1000]), "it ends in the middle of `a`: the data is cut short");
    assert_eq!(refused(&whole[..100]), "it ends in the middle of a header: the data is cut short");
}

#[test]
fn a_damaged_header_is_refused() {
    let mut tar = TarBuilder::default().file("a", b"x").end();
    tar[3] ^= 1;
    assert_eq!(refused(&tar), "it is not a valid tar archive: a header's checksum is wrong (at byte 512)");
    assert_eq!(refused(&[b'<'; 2048]), "it is not a valid tar archive: a header's checksum is wrong (at byte 512)");
}

#[test]
fn an_owner_that_no_file_can_have_is_refused() {
    for id in ["4294967295", "4294967296", "-1"] {
        let tar = TarBuilder::default().pax(&[("uid", id.as_bytes())]).file("a", b"").end();
        assert_eq!(refused(&tar), "it is not a valid tar archive: the uid of `a` is not valid (at byte 1536)");
    }
}

#[test]
fn a_file_is_no_directory() {
    let tar = TarBuilder::default().file("a", b"x").file("a/b", b"y").end();
    assert_eq!(refused(&tar), "entry `a/b` lies below `a`, which is not a directory");
    let root = Raw { name: b"./", kind: b'2', link: b"/etc", ..Raw::default() };
    assert_eq!(
        refused(&TarBuilder::default().raw(&root).end()),
        "entry `./` is the layer's root, yet no directory, which is not supported in a layer"
    );
}

#[test]
fn symlinks_with_impossible_targets_are_refused() {
    assert_eq!(
        refused(&TarBuilder::default().symlink("s", "").end()),
        "entry `s` has a symlink target that is empty or holds a NUL byte"
    );
    let long = "t".repeat(4096);
    let tar = TarBuilder::default().pax(&[("linkpath", long.as_bytes())]).symlink("s", "x").end();
    assert_eq!(refused(&tar), "entry `s` has a symlink target of 4096 bytes; Linux allows 4095");
}

#[test]
fn attributes_that_steer_the_host_or_the_overlay_are_left_out() {
    let arena = Arena::new();
    let tar = TarBuilder::default()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"x"),
            ("SCHILY.xattr.user.kept", b"value"),
        ])
        .dir("d", 0o755)
        .end();
    let (stats, _) = arena.unpack(&tar).unwrap();
    let dir = arena.layer().join("d");
    assert_eq!(stats.skipped_xattrs, 4);
    assert_eq!(super::xattr(&dir, "user.kept").unwrap(), b"value");
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque"] {
        assert_eq!(super::xattr(&dir, name), None, "{name}");
    }
}

#[test]
fn a_pipe_is_made_and_a_device_zero_is_no_whiteout() {
    let arena = Arena::new();
    let fifo = Raw { name: b"pipe", kind: b'6', mode: 0o620, uid: 5, ..Raw::default() };
    let zero = Raw { name: b"hidden", kind: b'3', ..Raw::default() };
    arena.unpack(&TarBuilder::default().raw(&fifo).raw(&zero).end()).unwrap();
    let pipe = fs::symlink_metadata(arena.layer().join("pipe")).unwrap();
    assert!(pipe.file_type().is_fifo());
    assert_eq!((pipe.mode() & 0o7777, pipe.uid()), (0o620, 5));
    assert_eq!(tree(&arena.layer()), ["pipe"]);
}

#[test]
fn hostile_names_are_shown_harmlessly() {
    let tar = TarBuilder::default().file("../\u{1b}[2J", b"").end();
    assert_eq!(refused(&tar), "entry `../\\u{1b}[2J` has `..` in its name: it would leave the layer");
}
