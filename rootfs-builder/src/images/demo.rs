//! The demo image: Debian's statically linked busybox, one layer, about 1 MiB.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::layout::{self, Image};
use super::program;
use super::tree::{Kind, Node, Tree};
use crate::Error;

const PACKAGE: &str = "busybox-static";
const BUSYBOX: &str = "bin/busybox";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/:/bin/false\n\
    demo:x:1000:1000:demo:/home/demo:/bin/sh\n\
    nobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\ntty:x:5:\ndemo:x:1000:\nnogroup:x:65534:\n";

/// The version of the package that apt would download.
pub(super) struct Package {
    version: String,
}

impl Package {
    pub(super) fn find() -> Result<Self, Error> {
        // Without package lists this fails, as if there were no such package.
        let show = program::run(Command::new("apt-cache").args(["show", "--no-all-versions", PACKAGE]), "apt");
        let output = match show {
            Err(Error::Program { .. }) => Vec::new(),
            other => other?,
        };
        let text = String::from_utf8_lossy(&output);
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        let version = version.ok_or_else(|| Error::NoArchive { wanted: format!("package {PACKAGE}") })?;
        Ok(Self { version: version.trim().to_owned() })
    }

    pub(super) fn name_and_version(&self) -> String {
        format!("{PACKAGE} {}", self.version)
    }
}

/// Writes the image's layout into an empty folder.
pub(super) fn build(package: &Package, out: &Path) -> Result<(), Error> {
    let work = tempfile::tempdir().map_err(Error::io("create", std::env::temp_dir()))?;
    let archive = unpack(work.path())?;
    let mut tree = Tree::default();
    let packaged = Tree::from_tar(&archive)?;
    let busybox = packaged.0.get(Path::new(BUSYBOX)).or_else(|| packaged.0.get(Path::new("usr/bin/busybox")));
    let Some(busybox) = busybox else {
        return Err(Error::Entry { archive, name: BUSYBOX.into(), why: "the package does not have it" });
    };
    tree.add(BUSYBOX, busybox.clone());
    for applet in applets(busybox, work.path())? {
        // The list names folders from the root, and busybox itself.
        if applet != BUSYBOX {
            tree.add(applet, Node::symlink(format!("/{BUSYBOX}")));
        }
    }
    add_files(&mut tree);
    let history = format!("{} from Debian", package.name_and_version());
    let config = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": ["sh"],
        "WorkingDir": "/",
    });
    layout::write(&Image { tag: "demo", layers: &[tree], history: &[&history], config }, out)
}

/// Downloads the package and unpacks its files as a tar archive.
fn unpack(work: &Path) -> Result<PathBuf, Error> {
    // apt's own user may not enter the folder, which makes it warn; the download works as the calling user.
    let mut apt = Command::new("apt-get");
    apt.current_dir(work).args([
        "download",
        "-q",
        "-o",
        "APT::Sandbox::User=root",
        "-o",
        "Acquire::Retries=3",
        PACKAGE,
    ]);
    program::run(&mut apt, "apt")?;
    let mut files = fs::read_dir(work).map_err(Error::io("read", work))?;
    let package = files.find_map(|file| file.ok().map(|file| file.path()).filter(|path| has_extension(path, "deb")));
    let package = package.ok_or_else(|| Error::io("find the package in", work)(std::io::ErrorKind::NotFound.into()))?;
    let tar = program::run(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package), "dpkg")?;
    let path = work.join("files.tar");
    fs::write(&path, tar).map_err(Error::io("write", &path))?;
    Ok(path)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The paths busybox has a program for, such as `bin/ls`, as this very binary lists them.
fn applets(busybox: &Node, work: &Path) -> Result<Vec<String>, Error> {
    let Kind::File(content) = &busybox.kind else { return Ok(Vec::new()) };
    let path = work.join("busybox");
    let mut bytes = Vec::new();
    content.open().and_then(|mut reader| reader.read_to_end(&mut bytes)).map_err(Error::io("read", BUSYBOX))?;
    fs::write(&path, bytes).map_err(Error::io("write", &path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(Error::io("make executable", &path))?;
    let list = program::run(Command::new(&path).arg("--list-full"), PACKAGE)?;
    Ok(String::from_utf8_lossy(&list).lines().map(str::to_owned).collect())
}

fn add_files(tree: &mut Tree) {
    let folder = |permissions| Node::new(Kind::Folder, permissions);
    for (path, permissions) in
        [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777), ("dev", 0o755), ("proc", 0o555), ("sys", 0o555)]
    {
        tree.add(path, folder(permissions));
    }
    tree.add("home/demo", Node { uid: 1000, gid: 1000, ..folder(0o755) });
    tree.add("etc/passwd", Node::file(PASSWD, 0o644));
    tree.add("etc/group", Node::file(GROUP, 0o644));
    tree.add("etc/hostname", Node::file("demo\n", 0o644));
}
