//! The capabilities a vmm keeps: those its file server needs to act for the users of a guest.

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::{ConfineError, step};

const KEPT: CapabilitySet = CapabilitySet::empty()
    // Files belong to the users of the guest, and root there may do to them what root does.
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP)
    // Files are created as the guest's user.
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    // Inodes that a guest remembers are kept as file handles, which open_by_handle_at(2) opens.
    .union(CapabilitySet::DAC_READ_SEARCH)
    // An opaque directory of an image layer says so in a trusted.* attribute, which only this capability can read.
    .union(CapabilitySet::SYS_ADMIN);

/// Reduces the calling thread to [`KEPT`], for good.
pub(super) fn drop_unneeded() -> Result<(), ConfineError> {
    step(set_no_new_privs(true), || "forbid new privileges".to_owned())?;
    let sets = CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: CapabilitySet::empty() };
    step(set_capabilities(None, sets), || "drop capabilities".to_owned())
}
