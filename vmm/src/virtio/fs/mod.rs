//! virtio-fs (virtio 1.2, section 5.11): one share of host files for the guest.
//!
//! ```text
//! guest queues <-> device (chains) <-> FUSE server (library) <-> share (what we allow) <-> passthrough (library) <-> host
//! ```
//!
//! The root of a share is a directory that [`crate::confine`] has built: its entries are mounts of host directories and
//! files, read-only where they must be. The guest's kernel checks permissions; we act for the uid and gid it names.
//!
//! # What a guest can make us keep
//!
//! One record (about 300 bytes, no descriptor where the host's file system has file handles) for each file it has
//! looked up and not forgotten, and about 100 bytes for each file it ever looked up, so that a file keeps its inode
//! number. Both are bounded by the files it can see or create. Open files are bounded by the process's descriptors.
//!
//! # What is not there
//!
//! File locks are local to the guest. Access control lists do not take part in its permission checks. A mapping of a
//! live file does not see what the host writes later.

mod device;
mod policy;
mod requests;
mod share;
#[cfg(test)]
mod tests;

pub(crate) use device::FsDevice;
