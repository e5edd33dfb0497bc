//! Unpacks one layer into a directory that an overlay in the guest can use as a lower layer.
//!
//! | in the layer | on the host |
//! |---|---|
//! | files, directories, symlinks, hard links, pipes | the same, with owner, mode, times, `user.*` and `security.capability` |
//! | whiteout `.wh.NAME` | character device 0:0 named NAME |
//! | opaque marker `.wh..wh..opq` | `trusted.overlay.opaque=y` on its directory; in the root: the layers below are left out |
//! | device nodes | nothing: they are counted; the guest makes a /dev of its own |
//! | a directory that was left out | made, with the attributes that the layers below show ([`settle`]) |
//!
//! A layer comes from strangers. Everything it can make us do is bounded ([`limits`], [`tar`]), and no path leads out of
//! the directory ([`tree`], [`path`]).

mod apply;
mod error;
mod header;
pub(crate) mod index;
mod limits;
mod path;
mod pax;
mod settle;
mod stream;
mod tar;
mod tree;

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

pub(crate) use error::is_disk_full;
pub use error::{EntryProblem, UnpackError};
pub(crate) use settle::ImplicitDirs;
pub(crate) use stream::Observer;

use super::digest::Digest;
use apply::Applier;
use limits::Budget;
use stream::Unpacked;
use tar::TarReader;
use tree::Tree;

/// A layer as it travels: part of a file, compressed or not.
#[derive(Clone, Debug)]
pub(crate) struct LayerBlob {
    pub(crate) file: PathBuf,
    /// Where in the file it begins.
    pub(crate) offset: u64,
    /// How long it is.
    pub(crate) size_bytes: u64,
    /// What its bytes must hash to; `None` if that was checked before, or nothing is known.
    pub(crate) digest: Option<Digest>,
}

/// What a layer held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerStats {
    /// Files, directories, links and pipes made.
    pub(crate) entries: u64,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Whiteouts and opaque directories.
    pub(crate) whiteouts: u64,
    /// Device nodes that were left out.
    pub(crate) skipped_devices: u64,
    /// Extended attributes that were left out.
    pub(crate) skipped_xattrs: u64,
    /// Records of AUFS that were left out.
    pub(crate) skipped_aufs: u64,
    /// Nothing of the layers below shows.
    pub(crate) opaque_root: bool,
}

/// Unpacks `blob` into the empty directory `into`, which lies in `store`, and checks that its tar stream is the one that `diff_id` names.
pub(crate) fn unpack(
    blob: &LayerBlob,
    diff_id: Digest,
    into: &Path,
    store: &Path,
    observer: &Observer<'_>,
) -> Result<(LayerStats, ImplicitDirs), UnpackError> {
    let mut tar = TarReader::new(open_stream(blob, observer)?);
    let mut tree = Tree::new(open_dir(into)?, Budget::new(open_dir(into)?, store.to_owned()));
    let mut applier = Applier::new(&mut tree);
    while let Some(entry) = tar.next_entry()? {
        applier.apply(&entry, &mut tar)?;
    }
    let stats = applier.finish();
    let implicit = ImplicitDirs(tree.finish());
    let digests = tar.into_inner().finish()?;
    if let (Some(expected), Some(actual)) = (blob.digest, digests.packed) {
        check("digest", expected, actual)?;
    }
    check("diff id", diff_id, digests.unpacked)?;
    Ok((stats, implicit))
}

fn open_stream<'a>(blob: &LayerBlob, observer: &'a Observer<'a>) -> Result<Unpacked<'a>, UnpackError> {
    let failed = |action| move |source| UnpackError::Io { action, path: blob.file.display().to_string(), source };
    let mut file = File::open(&blob.file).map_err(failed("open"))?;
    file.seek(SeekFrom::Start(blob.offset)).map_err(failed("read"))?;
    Unpacked::open(file, blob.size_bytes, blob.digest.is_some(), observer)
}

fn open_dir(path: &Path) -> Result<std::os::fd::OwnedFd, UnpackError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        UnpackError::Io { action: "open the directory", path: path.display().to_string(), source: errno.into() }
    })
}

fn check(what: &'static str, expected: Digest, actual: Digest) -> Result<(), UnpackError> {
    if expected == actual { Ok(()) } else { Err(UnpackError::Digest { what, expected, actual }) }
}

#[cfg(test)]
mod tests;
