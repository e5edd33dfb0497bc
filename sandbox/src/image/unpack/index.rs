//! The table of contents of an uncompressed tar file: where each member's data lies, without reading it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};

use super::error::UnpackError;
use super::path::EntryPath;
use super::tar::{Kind, TarReader};

/// Most members: an image has one for each layer and a few more.
const MEMBERS_MAX: usize = 16_384;
const BUFFER_BYTES: usize = 16 * 1024;

/// A member that an image may need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    /// Part of the archive.
    File {
        /// Where its data begins.
        offset: u64,
        /// How long it is.
        size_bytes: u64,
    },
    /// Another name for a member.
    Symlink {
        /// Relative to its directory.
        target: Vec<u8>,
    },
}

/// Skips by seeking: an archive of gigabytes is indexed in a few reads.
struct Seeking(BufReader<File>);

impl Read for Seeking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl super::tar::Skip for Seeking {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        let here = self.0.stream_position()?;
        let end = self.0.get_ref().metadata()?.len();
        let there = here.saturating_add(bytes).min(end);
        let step = i64::try_from(there.saturating_sub(here)).unwrap_or(i64::MAX);
        self.0.seek_relative(step)?;
        Ok(step.unsigned_abs())
    }
}

/// Lists the files and symlinks of the archive by their plain relative names; of several with one name, the last counts.
pub(crate) fn index_archive(file: File) -> Result<BTreeMap<Vec<u8>, Member>, UnpackError> {
    let mut tar = TarReader::new(Seeking(BufReader::with_capacity(BUFFER_BYTES, file)));
    let mut members = BTreeMap::new();
    while let Some(entry) = tar.next_entry()? {
        let path = EntryPath::new(&entry.path).map_err(|problem| UnpackError::entry(&entry.path, problem))?;
        let member = match entry.kind {
            Kind::File => Member::File { offset: tar.offset(), size_bytes: entry.size },
            Kind::Symlink => Member::Symlink { target: entry.link_target },
            _ => continue,
        };
        if members.len() >= MEMBERS_MAX {
            return Err(UnpackError::TooManyEntries { what: "members", limit: MEMBERS_MAX as u64 });
        }
        members.insert(path.as_bytes().to_vec(), member);
    }
    Ok(members)
}
