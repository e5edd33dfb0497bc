//! A tar reader with bounded memory: what an archive claims is believed only as far as it can be paid for.
//!
//! Written here because readers at hand keep long names of any length in memory, and follow claims before checking them.

use std::io::{self, Read};

use super::super::excerpt::excerpt_bytes;
use super::error::{EntryProblem, UnpackError, from_read};
use super::header::{BLOCK_BYTES, BadField, Header};
use super::pax::Extensions;

/// Most bytes of one PAX header: xattrs may be up to 64 KiB each.
const PAX_MAX_BYTES: u64 = 1024 * 1024;
/// Most bytes of one GNU long name, its NUL included.
const LONG_NAME_MAX_BYTES: u64 = 16 * 1024;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Device,
    Directory,
    Fifo,
}

/// An entry, extensions applied.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) link_target: Vec<u8>,
    pub(super) kind: Kind,
    /// Bytes of data that follow; 0 for all but files.
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A stream whose bytes can be passed over.
pub(super) trait Skip: Read {
    /// Passes over up to `bytes` and says how many; fewer only at the end.
    fn skip(&mut self, bytes: u64) -> io::Result<u64>
    where
        Self: Sized,
    {
        io::copy(&mut Read::by_ref(self).take(bytes), &mut io::sink())
    }
}

/// Reads entries one after the other.
pub(super) struct TarReader<R> {
    inner: R,
    /// Bytes consumed of the uncompressed stream.
    offset: u64,
    /// Data of the current entry not read yet, and the padding after it.
    data_left: u64,
    padding: u64,
    /// Name of the current entry, for messages.
    current: Vec<u8>,
}

impl<R: Skip> TarReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, offset: 0, data_left: 0, padding: 0, current: Vec::new() }
    }

    /// The stream, wherever it stands.
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// Where the current entry's data begins, if none of it has been read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry, or `None` at the archive's end; what was not read of the last one is skipped.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extensions = Extensions::default();
        let mut long_path = None;
        let mut long_target = None;
        loop {
            self.skip_rest()?;
            let Some(block) = self.read_header()? else { return Ok(None) };
            let header = Header(&block);
            self.current = header.path();
            let size = header.size().map_err(|field| self.bad_field(&field))?;
            match header.kind() {
                b'x' => {
                    let data = self.read_metadata(size, PAX_MAX_BYTES, "PAX header")?;
                    extensions = Extensions::parse(&data).map_err(|field| self.bad_field(&field))?;
                }
                // A global header sets defaults; git's archives keep a comment in it. Nothing in it concerns a layer.
                b'g' => self.start_data(size),
                b'L' => long_path = Some(self.read_name(size)?),
                b'K' => long_target = Some(self.read_name(size)?),
                kind => return self.entry(&header, kind, extensions, long_path, long_target).map(Some),
            }
        }
    }

    /// Reads data of the current entry; 0 at its end.
    pub(super) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let want = usize::try_from(self.data_left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..want) else { return Ok(0) };
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = self.read_some(buffer)?;
        if count == 0 {
            return Err(self.truncated());
        }
        self.data_left -= count as u64;
        Ok(count)
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        kind: u8,
        extensions: Extensions,
        long_path: Option<Vec<u8>>,
        long_target: Option<Vec<u8>>,
    ) -> Result<Entry, UnpackError> {
        let path = extensions.path.or(long_path).unwrap_or_else(|| header.path());
        self.current.clone_from(&path);
        let sparse = extensions.sparse || kind == b'S';
        if sparse {
            let what = "a sparse file of GNU tar".to_owned();
            return Err(UnpackError::entry(&path, EntryProblem::Unsupported { what }));
        }
        let kind = kind_of(kind, &path).map_err(|problem| UnpackError::entry(&path, problem))?;
        let bad = |field: BadField| self.bad_field(&field);
        // Only files carry data; what other kinds declare is ignored, as Go's and GNU's readers do.
        let size = match (kind, extensions.size) {
            (Kind::File, Some(size)) => size,
            (Kind::File, None) => header.size().map_err(bad)?,
            _ => 0,
        };
        let owner = |field, value: i64| {
            // The highest number means "unchanged" to chown(2).
            u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or(BadField(field))
        };
        let uid = extensions.uid.map_or_else(|| header.uid(), Ok).and_then(|uid| owner("uid", uid)).map_err(bad)?;
        let gid = extensions.gid.map_or_else(|| header.gid(), Ok).and_then(|gid| owner("gid", gid)).map_err(bad)?;
        let mtime = extensions.mtime.map_or_else(|| header.mtime().map(|seconds| (seconds, 0)), Ok).map_err(bad)?;
        let mode = header.mode().map_err(bad)?;
        let link_target = extensions.link_target.or(long_target).unwrap_or_else(|| header.link_target());
        self.start_data(size);
        Ok(Entry { path, link_target, kind, size, mode, uid, gid, mtime, xattrs: extensions.xattrs })
    }

    /// A checked header, or `None` at the end: a zero block, or the stream's end between two entries.
    fn read_header(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, UnpackError> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_some(rest)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(UnpackError::Truncated { place: "a header".to_owned() }),
                count => filled += count,
            }
        }
        let header = Header(&block);
        if header.is_zero() {
            return Ok(None);
        }
        if !header.checksum_is_good() {
            return Err(self.format("a header's checksum is wrong".to_owned()));
        }
        Ok(Some(block))
    }

    fn read_name(&mut self, size: u64) -> Result<Vec<u8>, UnpackError> {
        let mut name = self.read_metadata(size, LONG_NAME_MAX_BYTES, "long name")?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn read_metadata(&mut self, size: u64, limit: u64, what: &str) -> Result<Vec<u8>, UnpackError> {
        if size > limit {
            return Err(self.format(format!("a {what} of {size} bytes; at most {limit} are accepted")));
        }
        self.start_data(size);
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        let mut filled = 0;
        while let Some(rest) = data.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += self.read_data(rest)?;
        }
        Ok(data)
    }

    fn start_data(&mut self, size: u64) {
        let block = BLOCK_BYTES as u64;
        self.data_left = size;
        self.padding = (block - size % block) % block;
    }

    fn skip_rest(&mut self) -> Result<(), UnpackError> {
        let left = std::mem::take(&mut self.data_left) + std::mem::take(&mut self.padding);
        if left == 0 {
            return Ok(());
        }
        let skipped = self.inner.skip(left).map_err(|error| self.read_failed(error))?;
        self.offset += skipped;
        if skipped < left { Err(self.truncated()) } else { Ok(()) }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        loop {
            match self.inner.read(buffer) {
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_failed(error)),
            }
        }
    }

    fn read_failed(&self, error: io::Error) -> UnpackError {
        if error.kind() == io::ErrorKind::UnexpectedEof { self.truncated() } else { from_read(error) }
    }

    fn truncated(&self) -> UnpackError {
        let place =
            if self.current.is_empty() { "its data".to_owned() } else { format!("`{}`", excerpt_bytes(&self.current)) };
        UnpackError::Truncated { place }
    }

    fn bad_field(&self, field: &BadField) -> UnpackError {
        self.format(format!("the {} of `{}` is not valid", field.0, excerpt_bytes(&self.current)))
    }

    fn format(&self, reason: String) -> UnpackError {
        UnpackError::Format { offset: self.offset, reason }
    }
}

fn kind_of(flag: u8, path: &[u8]) -> Result<Kind, EntryProblem> {
    match flag {
        // V7 had no flag for directories, but ended their names with a slash.
        b'0' | 0 | b'7' if path.ends_with(b"/") => Ok(Kind::Directory),
        b'0' | 0 | b'7' => Ok(Kind::File),
        b'1' => Ok(Kind::HardLink),
        b'2' => Ok(Kind::Symlink),
        b'3' | b'4' => Ok(Kind::Device),
        b'5' => Ok(Kind::Directory),
        b'6' => Ok(Kind::Fifo),
        other => Err(EntryProblem::Unsupported { what: format!("of tar type `{}`", other.escape_ascii()) }),
    }
}
