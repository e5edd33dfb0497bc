//! The Debian image: the essential packages as one layer, Python and a clean-up as the next.
//!
//! mmdebstrap makes both in one run: the tree is saved once the essential packages are installed, and again at the end.
//! The second layer is the difference of the two, so it has whiteouts and an opaque folder as images in the wild do.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::diff::diff;
use super::layout::{self, Image};
use super::program;
use super::tree::{Node, Tree};
use crate::Error;

const CODENAME: &str = "bookworm";
const PACKAGES: &str = "python3";

/// Left out from the start: nothing reads them in a container.
const EXCLUDED: &[&str] = &["/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// Merges /usr from the start; the package that would do it later, `usrmerge`, brings 55 MiB of Perl.
const MERGED_USR: &str = "/usr/share/mmdebstrap/hooks/merged-usr";

/// Removed on top of the first layer: a file, whole folders, and a folder whose contents are replaced.
const CLEAN_UP: &str = "rm -rf \"$1\"/usr/share/doc/* \"$1\"/usr/share/lintian \"$1\"/etc/motd && \
    echo 'Documentation is left out of this image.' >\"$1\"/usr/share/doc/README";

/// What the image is made from.
pub(super) struct Recipe {
    /// apt's sources, one per line.
    sources: String,
}

impl Recipe {
    /// Takes the Debian archives, and no others, from this machine's apt.
    pub(super) fn find() -> Result<Self, Error> {
        let mut apt = Command::new("apt-get");
        let format = "$(ORIGIN) $(CODENAME) $(REPO_URI) $(COMPONENT)";
        apt.args(["indextargets", "--format", format, "Identifier: Packages"]);
        let targets = program::run(&mut apt, "apt")?;
        let sources = sources(&String::from_utf8_lossy(&targets));
        if sources.is_empty() {
            return Err(Error::NoArchive { wanted: format!("archive of Debian {CODENAME}") });
        }
        Ok(Self { sources })
    }

    pub(super) fn describe(&self) -> String {
        format!("{}\n{PACKAGES}\n{EXCLUDED:?}\n{MERGED_USR}\n{CLEAN_UP}", self.sources)
    }
}

/// Makes sources of the lines "ORIGIN CODENAME ADDRESS COMPONENT" that are of our release.
fn sources(targets: &str) -> String {
    let mut sources = String::new();
    for target in targets.lines() {
        let [origin, codename, address, component] = target.split_whitespace().collect::<Vec<_>>()[..] else {
            continue;
        };
        let of_release =
            codename == CODENAME || codename.strip_prefix(CODENAME).is_some_and(|rest| rest.starts_with('-'));
        if origin == "Debian" && of_release && component == "main" {
            // Writing to a String cannot fail.
            let _ = writeln!(sources, "deb {address} {codename} {component}");
        }
    }
    sources
}

/// Writes the image's layout into an empty folder.
pub(super) fn build(recipe: &Recipe, out: &Path) -> Result<(), Error> {
    let work = tempfile::tempdir().map_err(Error::io("create", std::env::temp_dir()))?;
    let (base, full) = (work.path().join("base.tar"), work.path().join("full.tar"));
    let sources = work.path().join("sources.list");
    std::fs::write(&sources, &recipe.sources).map_err(Error::io("write", &sources))?;
    // The format mmdebstrap itself uses; what it removes at the end must not be in the lower layer either.
    let save = format!(
        "tar --create --format=pax --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime --sort=name \
         --numeric-owner --xattrs --xattrs-include='*' --one-file-system --exclude='./var/cache/apt/*' \
         --exclude='./var/lib/apt/lists/*' --exclude='./dev/*' --directory \"$1\" --file '{}' .",
        base.display()
    );
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--quiet", "--variant=essential", "--aptopt=Acquire::Retries \"3\"", "--mode", mode()])
        .arg(format!("--include={PACKAGES}"));
    for path in EXCLUDED {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    mmdebstrap.arg(format!("--hook-directory={MERGED_USR}"));
    mmdebstrap.arg(format!("--essential-hook={save}")).arg(format!("--customize-hook={CLEAN_UP}"));
    program::run(mmdebstrap.arg(CODENAME).arg(&full).arg(&sources), "mmdebstrap")?;

    let lower = without_times_of_folders(Tree::from_tar(&base)?);
    let upper = without_times_of_folders(Tree::from_tar(&full)?);
    let upper_layer = diff(&lower, &upper);
    let config = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
        "Cmd": ["bash"],
    });
    let history = ["essential packages of Debian bookworm", "python3, without documentation"];
    layout::write(&Image { tag: "debian", layers: &[lower, upper_layer], history: &history, config }, out)
}

/// As root the packages' scripts run in a plain chroot; otherwise in a user namespace.
fn mode() -> &'static str {
    if rustix::process::geteuid().is_root() { "root" } else { "unshare" }
}

/// A folder's time changes with every file made in it, which would put most folders into the upper layer.
fn without_times_of_folders(mut tree: Tree) -> Tree {
    // Devices are the runtime's business, and cannot be made without privilege.
    tree.0.retain(|path, _| !path.starts_with("dev") || path == Path::new("dev"));
    for node in tree.0.values_mut().filter(|node| node.is_folder()) {
        *node = Node { mtime: 0, ..node.clone() };
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_archives_of_the_release_are_used() {
        let targets = "Debian bookworm http://a/debian/ main\n\
            Debian bookworm-security http://b/security/ main\n\
            Debian bookworm http://a/debian/ contrib\n\
            Debian trixie http://a/debian/ main\n\
            Debian bookwormish http://a/debian/ main\n\
            $(ORIGIN) cloud-sdk-bookworm https://c/ main\n\
            . nodistro https://d/ main\n";
        assert_eq!(
            sources(targets),
            "deb http://a/debian/ bookworm main\ndeb http://b/security/ bookworm-security main\n"
        );
    }
}
