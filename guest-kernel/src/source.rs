//! The pinned kernel sources: where they are looked for, in which order, and their digests.
//!
//! Debian's package and kernel.org pack different bytes, and follow each other at a distance of days, so each is pinned
//! by its own version and digest. Raising the kernel's version means to change [`PINNED`] and nothing else.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::Error;
use crate::progress::{Reporter, Step};

/// Where a pinned tarball comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Installed by the Debian package `linux-source-6.12`.
    Debian,
    /// Downloaded.
    KernelOrg,
    /// Named by the user.
    Given,
}

/// A tarball that is known to give the kernel we want.
#[derive(Debug, Clone, Copy)]
pub struct Pinned {
    /// Where it comes from.
    pub origin: Origin,
    /// Version as its packager names it.
    pub version: &'static str,
    /// SHA-256 of the tarball, hexadecimal.
    pub sha256: &'static str,
    /// A path for [`Origin::Debian`], an address for [`Origin::KernelOrg`].
    pub location: &'static str,
}

/// All pinned tarballs, in the order in which they are tried.
pub const PINNED: &[Pinned] = &[
    Pinned {
        origin: Origin::Debian,
        version: "6.12.117-1~deb12u1",
        sha256: "585a4a074597aefa2b1a68ada83a3184ba351c127544dea80618bbcceaa3961f",
        location: "/usr/src/linux-source-6.12.tar.xz",
    },
    Pinned {
        origin: Origin::KernelOrg,
        version: "6.12.80",
        sha256: "c92591d896e79ecddbc3319136f0c2f855e832b397de7593f013ad7590a43e53",
        location: "https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.12.80.tar.xz",
    },
];

/// A tarball named by the user.
#[derive(Debug, Clone)]
pub struct Given {
    /// The tarball.
    pub path: PathBuf,
    /// Its digest. Without one it must be one of the [`PINNED`] tarballs.
    pub sha256: Option<String>,
}

impl Given {
    /// Environment variable that names a tarball.
    pub const VARIABLE: &'static str = "BULKHEAD_KERNEL_SOURCE";

    /// The tarball that the environment names; it must be one of the [`PINNED`] ones.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let path = std::env::var_os(Self::VARIABLE).filter(|path| !path.is_empty())?;
        Some(Self { path: path.into(), sha256: None })
    }
}

/// A source that may be used: what it is, and where it should be.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Where it comes from.
    pub origin: Origin,
    /// Version as its packager names it; empty for a tarball with a digest of the user's own.
    pub version: String,
    /// SHA-256 of the tarball, lower-case hexadecimal.
    pub sha256: String,
    /// Path or address.
    pub location: String,
}

/// A source that is here and has its digest.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it comes from.
    pub origin: Origin,
    /// Version as its packager names it; empty if unknown.
    pub version: String,
    /// SHA-256 of the tarball, lower-case hexadecimal.
    pub sha256: String,
    /// The tarball.
    pub path: PathBuf,
}

/// The sources to try, best first; a tarball given by the user is the only one then.
///
/// # Errors
///
/// A given tarball that cannot be read or whose digest is not the expected one.
pub fn candidates(given: Option<&Given>) -> Result<Vec<Candidate>, Error> {
    match given {
        Some(given) => Ok(vec![check_given(given)?]),
        None => Ok(PINNED
            .iter()
            .map(|pinned| Candidate {
                origin: pinned.origin,
                version: pinned.version.into(),
                sha256: pinned.sha256.into(),
                location: pinned.location.into(),
            })
            .collect()),
    }
}

fn check_given(given: &Given) -> Result<Candidate, Error> {
    let found = sha256(&given.path)?;
    let pinned = PINNED.iter().find(|pinned| pinned.sha256 == found);
    let expected = given.sha256.as_ref().map(|digest| digest.to_ascii_lowercase());
    let accepted = expected.as_ref().map_or(pinned.is_some(), |expected| *expected == found);
    if !accepted {
        let pinned = PINNED.iter().map(|pinned| format!("{} ({})", pinned.sha256, pinned.version));
        let expected = expected.unwrap_or_else(|| pinned.collect::<Vec<_>>().join(" or "));
        return Err(Error::Digest { path: given.path.clone(), found, expected });
    }
    Ok(Candidate {
        origin: Origin::Given,
        version: pinned.map(|pinned| pinned.version.to_owned()).unwrap_or_default(),
        sha256: found,
        location: given.path.display().to_string(),
    })
}

/// Finds the first candidate that is here, or can be fetched, and has its digest.
///
/// # Errors
///
/// [`Error::NoSource`] with the reason and the fix for each candidate.
pub(crate) fn obtain(candidates: &[Candidate], cache: &Path, reporter: &Reporter<'_>) -> Result<Found, Error> {
    let mut tried = Vec::new();
    for candidate in candidates {
        let outcome = match candidate.origin {
            // Its digest was computed to make it a candidate.
            Origin::Given => Ok(PathBuf::from(&candidate.location)),
            Origin::Debian => debian(candidate, reporter),
            Origin::KernelOrg => download(candidate, cache, reporter),
        };
        match outcome {
            Ok(path) => {
                let Candidate { origin, version, sha256, .. } = candidate.clone();
                return Ok(Found { origin, version, sha256, path });
            }
            Err(why) => tried.push(why),
        }
    }
    Err(Error::NoSource { tried })
}

/// Looks at the tarball Debian's package installs.
fn debian(candidate: &Candidate, reporter: &Reporter<'_>) -> Result<PathBuf, String> {
    let Candidate { version, sha256: expected, location, .. } = candidate;
    let path = PathBuf::from(location);
    let fix = format!("apt-get install linux-source-6.12={version}");
    if !path.exists() {
        return Err(format!("Debian's {location} is not installed ({fix})"));
    }
    reporter.report(Step::Verify, 0);
    match sha256(&path) {
        Ok(found) if found == *expected => Ok(path),
        Ok(found) => Err(format!(
            "Debian's {location} is another version: sha256 {found}, expected {expected} ({fix}; \
             superseded versions are on snapshot.debian.org)"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Fetches a tarball into the cache, resuming an earlier attempt.
fn download(candidate: &Candidate, cache: &Path, reporter: &Reporter<'_>) -> Result<PathBuf, String> {
    let Candidate { sha256: expected, location, .. } = candidate;
    let name = location.rsplit('/').next().unwrap_or("linux.tar.xz");
    let folder = cache.join("downloads");
    let (complete, partial) = (folder.join(name), folder.join(format!("{name}.part")));
    if complete.exists() && sha256(&complete).is_ok_and(|found| found == *expected) {
        return Ok(complete);
    }
    fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    reporter.report(Step::Download, 0);
    let output = Command::new("curl")
        .args(["--fail", "--location", "--silent", "--show-error", "--continue-at", "-", "--connect-timeout", "20"])
        .arg("--output")
        .arg(&partial)
        .arg(location)
        .output()
        .map_err(|error| format!("cannot run curl to fetch {location}: {error} (apt-get install curl)"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "cannot download {location}: {} (fetch it elsewhere and name it with --source)",
            why.trim().lines().last().unwrap_or("curl failed")
        ));
    }
    reporter.report(Step::Verify, 0);
    let found = sha256(&partial).map_err(|error| error.to_string())?;
    if found != *expected {
        // Keeping it would make every later attempt resume from wrong bytes.
        let removed = fs::remove_file(&partial);
        let note = removed.err().map(|error| format!("; cannot remove it: {error}")).unwrap_or_default();
        return Err(format!("{location} has sha256 {found}, expected {expected}{note}"));
    }
    fs::rename(&partial, &complete).map_err(|error| format!("cannot rename {}: {error}", partial.display()))?;
    Ok(complete)
}

/// SHA-256 of a file, lower-case hexadecimal.
///
/// # Errors
///
/// The file cannot be read.
pub fn sha256(path: &Path) -> Result<String, Error> {
    let hash = |path: &Path| -> io::Result<String> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut buffer)?;
            match buffer.get(..count) {
                Some(bytes) if !bytes.is_empty() => hasher.update(bytes),
                _ => return Ok(hex::encode(hasher.finalize())),
            }
        }
    };
    hash(path).map_err(Error::io("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc" (FIPS 180-2, appendix B.1).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn tarball() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("linux.tar.xz");
        fs::write(&path, "abc").unwrap();
        (folder, path)
    }

    #[test]
    fn the_digest_of_a_file_is_its_sha256() {
        let (_folder, path) = tarball();
        assert_eq!(sha256(&path).unwrap(), ABC);
    }

    #[test]
    fn a_given_tarball_with_its_own_digest_is_the_only_candidate() {
        let (_folder, path) = tarball();
        let given = Given { path: path.clone(), sha256: Some(ABC.to_uppercase()) };
        let found = candidates(Some(&given)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].sha256, ABC);
        assert_eq!(found[0].origin, Origin::Given);
    }

    #[test]
    fn a_given_tarball_that_is_not_pinned_is_refused() {
        let (_folder, path) = tarball();
        let error = candidates(Some(&Given { path, sha256: None })).unwrap_err().to_string();
        assert!(error.contains(ABC), "{error}");
        assert!(error.contains(PINNED[0].sha256) && error.contains("--sha256"), "{error}");
    }

    #[test]
    fn another_version_of_debians_package_is_named_with_the_fix() {
        let (_folder, path) = tarball();
        let mut candidate = candidates(None).unwrap().remove(0);
        candidate.location = path.display().to_string();
        let sink = |_: &crate::Progress| ();
        let why = debian(&candidate, &Reporter::new(&sink)).unwrap_err();
        assert!(why.contains(ABC) && why.contains(PINNED[0].sha256), "{why}");
        assert!(why.contains("apt-get install linux-source-6.12=6.12.117-1~deb12u1"), "{why}");
    }

    #[test]
    fn a_download_with_the_wrong_digest_is_not_kept() {
        let (folder, path) = tarball();
        let sink = |_: &crate::Progress| ();
        let mut candidate = candidates(None).unwrap().remove(1);
        candidate.location = format!("file://{}", path.display());
        let why = download(&candidate, folder.path(), &Reporter::new(&sink)).unwrap_err();
        assert!(why.contains(ABC), "{why}");
        assert!(!folder.path().join("downloads/linux.tar.xz.part").exists());

        candidate.sha256 = ABC.into();
        let fetched = download(&candidate, folder.path(), &Reporter::new(&sink)).unwrap();
        assert_eq!(fs::read_to_string(fetched).unwrap(), "abc");
    }
}
