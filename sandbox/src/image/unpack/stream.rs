//! From a layer's blob to its tar stream: counts, decompresses and hashes on the way.
//!
//! ```text
//! file ──> Packed (counts, hashes, reports) ──> gzip | zstd | nothing ──> Unpacked (hashes, counts, bomb check) ──> tar
//! ```

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest as _, Sha256};

use super::super::digest::Digest;
use super::error::{StreamFault, UnpackError, from_read};
use super::limits::check_ratio;

const BUFFER_BYTES: usize = 128 * 1024;

/// Where to look while the layer is read.
pub(crate) struct Observer<'a> {
    /// Set when the caller has given up.
    pub(crate) cancelled: &'a AtomicBool,
    /// Is told how many bytes of the blob have been read.
    pub(crate) read: &'a (dyn Fn(u64) + Sync),
}

/// What has been read of the blob.
struct PackedState {
    bytes: u64,
    hasher: Option<Sha256>,
}

struct Packed<'a> {
    inner: io::Take<File>,
    state: Rc<RefCell<PackedState>>,
    observer: &'a Observer<'a>,
}

impl Read for Packed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.observer.cancelled.load(Ordering::Relaxed) {
            return Err(StreamFault::into_io(UnpackError::Cancelled));
        }
        let count = self.inner.read(buffer)?;
        let mut state = self.state.borrow_mut();
        state.bytes += count as u64;
        if let (Some(hasher), Some(read)) = (&mut state.hasher, buffer.get(..count)) {
            hasher.update(read);
        }
        (self.observer.read)(state.bytes);
        Ok(count)
    }
}

/// The tar stream of a layer.
pub(super) struct Unpacked<'a> {
    inner: Box<dyn Read + 'a>,
    packed: Rc<RefCell<PackedState>>,
    bytes: u64,
    hasher: Sha256,
}

/// What a layer's stream turned out to be.
pub(super) struct StreamDigests {
    /// Of the blob; only if asked for.
    pub(super) packed: Option<Digest>,
    /// Of the uncompressed tar stream.
    pub(super) unpacked: Digest,
}

impl<'a> Unpacked<'a> {
    /// Opens the `len` bytes from the file's position; `hash_packed` asks for the digest of the blob as well.
    pub(super) fn open(
        file: File,
        len: u64,
        hash_packed: bool,
        observer: &'a Observer<'a>,
    ) -> Result<Self, UnpackError> {
        let hasher = hash_packed.then(Sha256::new);
        let packed = Rc::new(RefCell::new(PackedState { bytes: 0, hasher }));
        let reader = Packed { inner: file.take(len), state: Rc::clone(&packed), observer };
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        let start = reader.fill_buf().map_err(from_read)?;
        let inner: Box<dyn Read + 'a> = match start {
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            // The library's default bounds the window, and so our memory, to 128 MiB.
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(reader).map_err(from_read)?),
            [b'B', b'Z', b'h', ..] => return Err(UnpackError::Compression { format: "bzip2" }),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(UnpackError::Compression { format: "xz" }),
            [0x04, 0x22, 0x4d, 0x18, ..] => return Err(UnpackError::Compression { format: "lz4" }),
            _ => Box::new(reader),
        };
        Ok(Self { inner, packed, bytes: 0, hasher: Sha256::new() })
    }

    /// Reads what follows the archive's end, so that the digests cover everything, and gives them.
    pub(super) fn finish(mut self) -> Result<StreamDigests, UnpackError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.read(&mut buffer).map_err(from_read)? > 0 {}
        let packed = self.packed.borrow_mut().hasher.take();
        Ok(StreamDigests { packed: packed.map(Digest::finish), unpacked: Digest::finish(self.hasher) })
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if let Some(read) = buffer.get(..count) {
            self.hasher.update(read);
        }
        check_ratio(self.packed.borrow().bytes, self.bytes).map_err(StreamFault::into_io)?;
        Ok(count)
    }
}

impl super::tar::Skip for Unpacked<'_> {}
