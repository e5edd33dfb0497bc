//! Placeholder until the probe is complete.
pub(crate) fn probe() -> bulkhead_protocols::control::ProbeReport {
    bulkhead_protocols::control::ProbeReport {
        accelerator: bulkhead_protocols::vm::Accelerator::Kvm,
        usable: false,
        checks: Vec::new(),
    }
}
