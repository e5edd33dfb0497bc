//! Builds what a guest boots into, and images to try it with.
//!
//! - [`initramfs`]: the archive the kernel unpacks: the static agent as `/init` and nothing it does not need. The same
//!   agent gives the same bytes. [`Manifest`] says what is in it and beside it.
//! - [`images`]: small real OCI images made from Debian packages, for the demo and the tests.

mod cpio;
mod digest;
mod elf;
mod error;
mod guest;
mod manifest;

pub mod images;

pub use error::Error;
pub use guest::initramfs;
pub use manifest::{FileDigest, Kernel, Manifest};
