//! References as users write them, right and wrong.

use super::super::fixtures::full;
use super::*;

fn shown(name: &str) -> String {
    let reference: Reference = name.parse().unwrap();
    let tag = reference.tag().unwrap_or("-");
    format!("{} {} {tag}", reference.domain(), reference.repository())
}

fn refused(name: &str) -> String {
    full(&name.parse::<ImageSource>().unwrap_err())
}

#[test]
fn short_names_are_completed_as_docker_does() {
    assert_eq!(shown("busybox"), "docker.io library/busybox latest");
    assert_eq!(shown("busybox:1.36"), "docker.io library/busybox 1.36");
    assert_eq!(shown("team/app"), "docker.io team/app latest");
    assert_eq!(shown("docker.io/busybox"), "docker.io library/busybox latest");
    assert_eq!(shown("index.docker.io/team/app"), "docker.io team/app latest");
    assert_eq!(shown("localhost/app"), "localhost app latest");
    assert_eq!(shown("localhost:5000/foo:tag"), "localhost:5000 foo tag");
    assert_eq!(shown("ghcr.io/a/b/c"), "ghcr.io a/b/c latest");
    assert_eq!(shown("[::1]:5000/a__b/c.d-e--f_g"), "[::1]:5000 a__b/c.d-e--f_g latest");
    assert_eq!(shown("Host/app"), "Host app latest");
}

#[test]
fn digests_take_the_place_of_tags() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let reference: Reference = format!("busybox@{digest}").parse().unwrap();
    assert_eq!((reference.tag(), reference.digest().unwrap().to_string()), (None, digest.clone()));
    let reference: Reference = format!("r.io/app:1@{digest}").parse().unwrap();
    assert_eq!((reference.tag(), reference.digest().unwrap().to_string()), (Some("1"), digest));
}

#[test]
fn names_are_shown_short() {
    for name in ["busybox:latest", "team/app:1", "localhost:5000/foo:tag", "r.io/library/x:y"] {
        assert_eq!(name.parse::<Reference>().unwrap().to_string(), name);
    }
    assert_eq!("docker.io/library/busybox".parse::<Reference>().unwrap().to_string(), "busybox:latest");
}

#[test]
fn only_loopback_is_spoken_to_without_tls() {
    let loopback = |name: &str| format!("{name}/x").parse::<Reference>().unwrap().is_loopback();
    for name in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9:80", "[::1]:5000"] {
        assert!(loopback(name), "{name}");
    }
    for name in ["localhost.example.com", "10.0.0.1:5000", "128.0.0.1:80", "docker.io", "[::2]:5000", "127.0.0.1.x.io"]
    {
        assert!(!loopback(name), "{name}");
    }
}

#[test]
fn paths_and_their_tags_are_split_at_the_first_colon() {
    let source = |name: &str| name.parse::<ImageSource>().unwrap();
    let layout = |dir: &str, tag: Option<&str>| ImageSource::OciLayout { dir: dir.into(), tag: tag.map(Into::into) };
    assert_eq!(source("oci:/a/b"), layout("/a/b", None));
    assert_eq!(source("oci:dir:v1.0"), layout("dir", Some("v1.0")));
    let ImageSource::DockerArchive { file, reference } = source("docker-archive:x.tar:localhost:5000/a:b") else {
        panic!("not an archive");
    };
    assert_eq!((file.to_str(), reference.unwrap().to_string().as_str()), (Some("x.tar"), "localhost:5000/a:b"));
}

#[test]
fn wrong_names_say_what_is_wrong() {
    assert_eq!(refused(""), "the image name is empty; give one such as busybox, localhost:5000/app:1.0 or oci:DIR:TAG");
    assert_eq!(
        refused("BusyBox"),
        "image name `BusyBox`: the repository `BusyBox` must be in lower case; try `busybox`"
    );
    assert_eq!(
        refused("a//b"),
        "image name `a//b`: `` is not a valid part of a repository: lower-case letters and digits, separated by `.`, `_`, `__` or `-`"
    );
    assert_eq!(
        refused("app:bad tag"),
        "image name `app:bad tag`: `bad tag` is not a valid tag: letters, digits, `_`, `.` and `-`, at most 128, the first a letter, digit or `_`"
    );
    assert_eq!(
        refused("host:99999/app"),
        "image name `host:99999/app`: `host:99999` is not a registry's HOST or HOST:PORT"
    );
    assert_eq!(
        refused("app@sha256:12"),
        "image name `app@sha256:12`: `sha256:12` is not a digest of the form sha256:<64 lowercase hexadecimal digits>"
    );
    assert_eq!(refused(&format!("a/{}", "b".repeat(300))), "image name of 312 bytes: at most 255 are allowed");
    assert_eq!(refused("oci:"), "`oci:` names no path; write oci:DIR or oci:DIR:TAG");
    assert_eq!(
        refused("docker-archive::x"),
        "`docker-archive::x` names no path; write docker-archive:FILE or docker-archive:FILE:REF"
    );
    for name in [
        " ", "-", "a/../b", "a b", "a/b/", "/a", "a:", ":tag", "a@", "a\0b", "x.-y", "_a", "a---.b", "[::1/a", "\u{fc}",
    ] {
        assert!(name.parse::<ImageSource>().is_err(), "{name:?}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(name in ".{0,80}") {
        if let Ok(source) = name.parse::<ImageSource>() {
            let again: ImageSource = source.to_string().parse().unwrap();
            assert_eq!(again.to_string(), source.to_string());
        }
    }
}
