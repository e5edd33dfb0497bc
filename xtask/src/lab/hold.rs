//! Keeps KVM's switches where they are while the lab is up; runs in the lab, from `init.sh`.
//!
//! KVM turns parts of the kernel's code on and off by patching jumps ("static keys"): with the first and last VM, with
//! the first and last vCPU without an interrupt controller, and with the first and last vCPU whose interrupt controller
//! is disabled, as it is when a VM is made. A processor that TCG emulates may still execute the breakpoint that marks
//! code being patched after the patching is over, and the lab's kernel then dies of it (`Oops: int3`). So the lab holds
//! one of each from its start to its end, and nothing is patched in between.

use std::io::Write;

use anyhow::Context;
use kvm_ioctls::Kvm;

/// Makes the VMs, says so on stdout, and keeps them until it is killed.
pub(crate) fn command() -> anyhow::Result<std::process::ExitCode> {
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let without_controller = kvm.create_vm().context("cannot create a VM")?;
    let _without_controller = without_controller.create_vcpu(0).context("cannot create a vCPU")?;
    let with_controller = kvm.create_vm().context("cannot create a VM")?;
    with_controller.create_irq_chip().context("cannot create the interrupt controllers")?;
    let _with_controller = with_controller.create_vcpu(0).context("cannot create a vCPU")?;
    println!("held");
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}
