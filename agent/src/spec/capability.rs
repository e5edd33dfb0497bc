//! Capability names to masks. The numbers are those of `linux/capability.h`.

use oci_spec::runtime::{Capabilities, LinuxCapabilities};

use super::SpecError;
use crate::plan::CapabilityPlan;

/// Names in the order of their numbers, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All five sets; a set that is not given is empty.
pub(super) fn plan(sets: Option<&LinuxCapabilities>) -> Result<CapabilityPlan, SpecError> {
    let Some(sets) = sets else { return Ok(CapabilityPlan::default()) };
    Ok(CapabilityPlan {
        bounding: mask("bounding", sets.bounding())?,
        effective: mask("effective", sets.effective())?,
        permitted: mask("permitted", sets.permitted())?,
        inheritable: mask("inheritable", sets.inheritable())?,
        ambient: mask("ambient", sets.ambient())?,
    })
}

fn mask(set: &str, capabilities: &Option<Capabilities>) -> Result<u64, SpecError> {
    let mut mask = 0;
    for capability in capabilities.iter().flatten() {
        let text = capability.to_string();
        let name = text.strip_prefix("CAP_").unwrap_or(&text);
        let number = NAMES
            .iter()
            .position(|known| *known == name)
            .ok_or_else(|| format!("process.capabilities.{set}: {text:?} is unknown"))?;
        mask |= 1 << number;
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        for (number, name) in [
            (0, "CHOWN"),
            (12, "NET_ADMIN"),
            (21, "SYS_ADMIN"),
            (27, "MKNOD"),
            (31, "SETFCAP"),
            (37, "AUDIT_READ"),
            (40, "CHECKPOINT_RESTORE"),
        ] {
            assert_eq!(NAMES.iter().position(|known| *known == name), Some(number), "{name}");
        }
    }

    #[test]
    fn every_capability_of_the_specification_is_known() {
        let names: Vec<String> = NAMES.iter().map(|name| format!("CAP_{name}")).collect();
        let json = serde_json::json!({ "bounding": names });
        let sets: LinuxCapabilities = serde_json::from_value(json).unwrap();
        assert_eq!(plan(Some(&sets)).unwrap().bounding, (1 << NAMES.len()) - 1);
    }
}
