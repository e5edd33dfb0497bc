//! The capabilities a vmm keeps: those its file server needs to act for the users of a guest.

use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits, set_capabilities,
    set_capabilities_secure_bits, set_no_new_privs,
};

use super::{ConfineError, step};

const KEPT: CapabilitySet = CapabilitySet::empty()
    // Files belong to the users of the guest, and root there may do to them what root does.
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP)
    // QEMU runs as a user of its own, and is ended from here.
    .union(CapabilitySet::KILL)
    // Files are created as the guest's user.
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    // Inodes that a guest remembers are kept as file handles, which open_by_handle_at(2) opens.
    .union(CapabilitySet::DAC_READ_SEARCH)
    // An opaque directory of an image layer says so in a trusted.* attribute, which only this capability can read.
    .union(CapabilitySet::SYS_ADMIN);

/// Reduces the calling thread to [`KEPT`], for good.
///
/// A change of the user id leaves capabilities alone from here on. The file server takes on the guest's user to create
/// files as theirs; the guest's kernel has checked their permission, by groups that we do not know, and the directory is
/// opened by its file handle, which takes a capability.
pub(super) fn drop_unneeded() -> Result<(), ConfineError> {
    step(set_no_new_privs(true), || "forbid new privileges".to_owned())?;
    let keep = CapabilitiesSecureBits::NO_SETUID_FIXUP;
    step(capabilities_secure_bits().and_then(|bits| set_capabilities_secure_bits(bits | keep)), || {
        "keep capabilities across changes of the user id".to_owned()
    })?;
    let kept = step(capabilities(None), || "read capabilities".to_owned())?.permitted & KEPT;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    step(set_capabilities(None, sets), || "drop capabilities".to_owned())
}
