//! virtio-fs (virtio 1.2, section 5.11): one share, one device.
//!
//! ```text
//!  queue 0 (hiprio)  ─┐                   ┌─ policy: refuse what the share must not do ─> -EROFS, -EPERM
//!  queue 1 (request) ─┴─> device: header ─┤
//!                                         └─ server: FUSE on the host directory ─> reply
//!                                                └─ absent name in an immutable share: a negative entry
//! ```
//!
//! - `spec`: FUSE opcodes and the two replies written here.
//! - `policy`: which requests a share refuses before they reach the file server.
//! - `server`: the file server of one share, `fuse-backend-rs` with options chosen per [`Caching`].
//! - `device`: the device core.
//!
//! The file server sees the host through the process's mount namespace; `confine` has made that hold the shares alone.
//!
//! [`Caching`]: bulkhead_protocols::vm::Caching

mod device;
mod policy;
mod server;
mod spec;

#[cfg(test)]
mod tests;

pub(crate) use device::FsDevice;
