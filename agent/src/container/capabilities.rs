//! The five capability sets (capabilities(7)).

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::report::{Doing, Failure};
use crate::plan::CapabilityPlan;

/// Bits of a capability mask.
const CAPABILITY_BITS: u32 = 64;

/// Takes everything from the bounding set that `allowed` lacks, as far as the kernel knows capabilities.
pub(super) fn limit_bounding_set(allowed: u64) -> Result<(), Failure> {
    for number in (0..CAPABILITY_BITS).filter(|number| allowed & (1 << number) == 0) {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // Beyond the last capability of this kernel.
            Err(Errno::INVAL) => break,
            Err(error) => {
                return Err(error).doing(|| format!("process.capabilities.bounding: drop capability {number}"));
            }
        }
    }
    Ok(())
}

/// Sets the other four sets; the process has changed its user already and kept its capabilities over that.
pub(super) fn apply(plan: &CapabilityPlan) -> Result<(), Failure> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(plan.effective),
        permitted: CapabilitySet::from_bits_retain(plan.permitted),
        inheritable: CapabilitySet::from_bits_retain(plan.inheritable),
    };
    rustix::thread::set_capabilities(None, sets)
        .asked(|| "process.capabilities: effective must be within permitted, and inheritable within bounding".into())?;
    for number in (0..CAPABILITY_BITS).filter(|number| plan.ambient & (1 << number) != 0) {
        rustix::thread::configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << number), true).asked(
            || format!("process.capabilities.ambient: capability {number} must be permitted and inheritable too"),
        )?;
    }
    Ok(())
}
