//! virtio-blk: a raw file or block device as the guest's disk (virtio 1.2, section 5.2).
//!
//! [`device::BlockDevice`] owns the open file; [`request`] takes a chain apart and trusts nothing in it; [`sys`] moves
//! data between file and guest memory without a copy in between.

mod device;
mod request;
mod spec;
mod sys;
#[cfg(test)]
mod tests;

pub(crate) use device::BlockDevice;
