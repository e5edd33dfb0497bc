//! The images that the demo and the tests run, made from Debian packages and kept in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use rootfs_builder::images::OciLayout;

use crate::packages;
use crate::paths::Paths;
use crate::process;
use crate::step::step;

/// A small image for the demo.
pub(crate) fn demo(paths: &Paths) -> anyhow::Result<OciLayout> {
    packages::ensure(packages::DEMO_IMAGE)?;
    packages::ensure_lists()?;
    step("demo image from Debian's busybox-static", || Ok(rootfs_builder::images::demo(&paths.cache)?))
}

/// The directory with the tests' images: OCI layouts `busybox` (tag `demo`) and `debian` (tag `debian`), and the same
/// as docker archives, `busybox.tar` and `debian.tar`.
pub(crate) fn for_tests(paths: &Paths) -> anyhow::Result<PathBuf> {
    let busybox = demo(paths)?;
    let debian = step("Debian image with python3 (mmdebstrap)", || Ok(rootfs_builder::images::debian(&paths.cache)?))?;
    let directory = paths.target.join("test-images");
    std::fs::create_dir_all(&directory)?;
    for (layout, name) in [(busybox, "busybox"), (debian, "debian")] {
        link(&layout.dir, &directory.join(name))?;
        let archive = docker_archive(&layout, &directory, name)?;
        link(&archive, &directory.join(format!("{name}.tar")))?;
    }
    Ok(directory)
}

/// Converts a layout by skopeo; the archive is named after the layout's hash, so that it is made once.
fn docker_archive(layout: &OciLayout, directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let hash = layout.dir.file_name().context("a layout without a name")?.to_string_lossy().into_owned();
    let archive = directory.join(format!("{hash}.tar"));
    if !archive.exists() {
        let unfinished = directory.join(format!("{hash}.unfinished"));
        // skopeo refuses to add to an archive that a stopped run left.
        let _ = std::fs::remove_file(&unfinished);
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "copy", "--quiet"]).arg(layout.reference());
        copy.arg(format!("docker-archive:{}:{name}:latest", unfinished.display()));
        step(&format!("{name} as a docker archive"), || process::run_quiet(&mut copy))?;
        std::fs::rename(&unfinished, &archive)?;
    }
    Ok(archive)
}

/// Makes `link` point to `target`, whatever it was before.
fn link(target: &Path, link: &Path) -> anyhow::Result<()> {
    let _ = std::fs::remove_file(link);
    std::os::unix::fs::symlink(target, link).with_context(|| format!("cannot create {}", link.display()))
}
