//! What an x86-64 guest finds in its memory and registers when it starts.
//!
//! The kernel is entered by the 64-bit boot protocol (Linux, Documentation/arch/x86/boot.rst, "64-bit boot protocol"),
//! at the ELF entry point. The PVH entry would do as well, but from there the kernel looks for Xen with 256 CPUID
//! instructions, each a VM exit. Nothing in here touches KVM: the modules fill guest memory and hand out registers.

pub(crate) mod boot;
pub(crate) mod layout;
pub(crate) mod mptable;
pub(crate) mod start_state;
#[cfg(test)]
mod tests;
