//! Which devices a container's processes may use: cgroup version 2 has a BPF program where version 1 had files.
//!
//! As in runc, a container starts with nothing but the default devices, and the rules of the specification follow; of the
//! rules that fit an access, the last one decides. The program therefore asks them from the last to the first.

use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::Cgroup;
use crate::server::Refusal;
use crate::sys::bpf;

/// Most rules: each takes up to nine instructions of the kernel's 4,096 that are safe for any program.
const RULES_MAX: usize = 400;

/// `BPF_DEVCG_DEV_*` of `linux/bpf.h`.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;
/// `BPF_DEVCG_ACC_*`.
const MAKE_NODE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const EVERYTHING: u32 = MAKE_NODE | READ | WRITE;

/// One rule; `None` fits everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRule {
    allow: bool,
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

/// The devices every container may use: null, zero, full, random, urandom, tty, console, ptmx, and the terminals of its
/// devpts.
const DEFAULT_DEVICES: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// The default devices, and making nodes, which is no use without access.
fn default_rules() -> Vec<DeviceRule> {
    let nodes = |kind| DeviceRule { allow: true, kind: Some(kind), major: None, minor: None, access: MAKE_NODE };
    let usable = |(major, minor)| DeviceRule {
        allow: true,
        kind: Some(CHARACTER),
        major: Some(major),
        minor,
        access: EVERYTHING,
    };
    [nodes(CHARACTER), nodes(BLOCK)].into_iter().chain(DEFAULT_DEVICES.map(usable)).collect()
}

/// Translates `linux.resources.devices`; the error names what is wrong.
pub(crate) fn rules(listed: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, String> {
    if listed.len() > RULES_MAX {
        return Err(format!("linux.resources.devices has {} rules, more than {RULES_MAX}", listed.len()));
    }
    // A first rule that denies all is how runtimes write "beyond the default devices": it comes before these.
    let beyond_default = listed.split_first().filter(|(first, _)| denies_all(first)).map_or(listed, |(_, rest)| rest);
    let mut all = default_rules();
    for rule in beyond_default {
        all.push(translate(rule)?);
    }
    Ok(all)
}

fn denies_all(rule: &LinuxDeviceCgroup) -> bool {
    let any = |number: Option<i64>| number.is_none_or(|number| number < 0);
    let every_kind = matches!(rule.typ(), None | Some(LinuxDeviceType::A));
    !rule.allow() && every_kind && any(rule.major()) && any(rule.minor()) && access_bits(rule) == Ok(EVERYTHING)
}

fn translate(rule: &LinuxDeviceCgroup) -> Result<DeviceRule, String> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => None,
        Some(LinuxDeviceType::B) => Some(BLOCK),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHARACTER),
        Some(LinuxDeviceType::P) => return Err("linux.resources.devices: a fifo is no device to be allowed".into()),
    };
    let number = |name: &str, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .ok()
            .filter(|value| *value <= i32::MAX.unsigned_abs())
            .map(Some)
            .ok_or_else(|| format!("linux.resources.devices: {name} number {value} is out of range")),
    };
    let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
    Ok(DeviceRule { allow: rule.allow(), kind, major, minor, access: access_bits(rule)? })
}

fn access_bits(rule: &LinuxDeviceCgroup) -> Result<u32, String> {
    let Some(letters) = rule.access().as_deref().filter(|letters| !letters.is_empty()) else { return Ok(EVERYTHING) };
    letters.chars().try_fold(0, |bits, letter| match letter {
        'r' => Ok(bits | READ),
        'w' => Ok(bits | WRITE),
        'm' => Ok(bits | MAKE_NODE),
        _ => Err(format!("linux.resources.devices: access {letters:?} has more than the letters r, w and m")),
    })
}

impl Cgroup {
    /// Lets the group's processes use the devices that `rules` allow, and no others.
    pub(crate) fn restrict_devices(&self, rules: &[DeviceRule]) -> Result<(), Refusal> {
        let failed = |error: rustix::io::Errno| {
            Refusal::internal(format!("restrict devices: {error}; the guest's kernel needs CONFIG_CGROUP_BPF"))
        };
        let program = bpf::load_device_filter(&assemble(rules)).map_err(failed)?;
        bpf::attach_device_filter(self.open()?.as_fd(), &program).map_err(failed)
    }
}

/// Instructions of the filter. It finds `struct bpf_cgroup_dev_ctx` behind r1: kind and access in one word, major, minor.
fn assemble(rules: &[DeviceRule]) -> Vec<u64> {
    let mut program = vec![
        load_word(KIND, 0),
        copy(ACCESS, KIND),
        with_constant(AND_32, KIND, 0xffff),
        with_constant(SHIFT_RIGHT_32, ACCESS, 16),
        load_word(MAJOR, 4),
        load_word(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        program.extend(assemble_rule(rule));
    }
    program.extend([with_constant(MOVE_32, RESULT, 0), EXIT]);
    program
}

/// A rule: jump over the verdict where something does not fit.
fn assemble_rule(rule: &DeviceRule) -> Vec<u64> {
    // Pairs of a test and whether it is "not equal" or "equal" that leads on to the next rule.
    let mut steps: Vec<Vec<u64>> = Vec::new();
    let numbers = [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)];
    for (register, wanted) in numbers.into_iter().filter_map(|(register, wanted)| Some((register, wanted?))) {
        steps.push(vec![with_constant(JUMP_UNEQUAL_32, register, wanted)]);
    }
    if rule.access != EVERYTHING {
        // Allowed is an access all of whose kinds the rule names; denied is one any of whose kinds it names.
        let (mask, jump) = if rule.allow { (!rule.access, JUMP_UNEQUAL_32) } else { (rule.access, JUMP_EQUAL_32) };
        steps.push(vec![
            copy(TEMPORARY, ACCESS),
            with_constant(AND_32, TEMPORARY, mask),
            with_constant(jump, TEMPORARY, 0),
        ]);
    }
    let mut code: Vec<u64> = steps.concat();
    code.extend([with_constant(MOVE_32, RESULT, u32::from(rule.allow)), EXIT]);
    let end = code.len();
    for (at, instruction) in code.iter_mut().enumerate() {
        if is_jump(*instruction) {
            // Relative to the next instruction; a rule has nine at most.
            *instruction |= ((end - at - 1) as u64 & 0xffff) << 16;
        }
    }
    code
}

/// Registers.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const TEMPORARY: u8 = 6;

/// Operation codes (RFC 9669), with an operand of 32 bits in the instruction.
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const MOVE_32: u8 = 0xb4;
const JUMP_EQUAL_32: u8 = 0x16;
const JUMP_UNEQUAL_32: u8 = 0x56;
const COPY_32: u8 = 0xbc;
const LOAD_WORD: u8 = 0x61;
const EXIT: u64 = 0x95;

fn instruction(code: u8, destination: u8, source: u8, offset: u16, constant: u32) -> u64 {
    u64::from(code) | u64::from(destination | source << 4) << 8 | u64::from(offset) << 16 | u64::from(constant) << 32
}

fn load_word(destination: u8, offset: u16) -> u64 {
    instruction(LOAD_WORD, destination, CONTEXT, offset, 0)
}

fn copy(destination: u8, source: u8) -> u64 {
    instruction(COPY_32, destination, source, 0, 0)
}

fn with_constant(code: u8, destination: u8, constant: u32) -> u64 {
    instruction(code, destination, 0, 0, constant)
}

fn is_jump(instruction: u64) -> bool {
    matches!((instruction & 0xff) as u8, JUMP_EQUAL_32 | JUMP_UNEQUAL_32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Runs the program as the kernel would.
    fn allows(rules: &[DeviceRule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let program = assemble(rules);
        let mut registers = [0_u32; 7];
        let mut at = 0;
        loop {
            let word = program[at];
            let (code, constant) = ((word & 0xff) as u8, (word >> 32) as u32);
            let (destination, source) = ((word >> 8 & 0xf) as usize, (word >> 12 & 0xf) as usize);
            let offset = (word >> 16 & 0xffff) as usize;
            at += 1;
            match code {
                LOAD_WORD => registers[destination] = [access << 16 | kind, major, minor][offset / 4],
                COPY_32 => registers[destination] = registers[source],
                AND_32 => registers[destination] &= constant,
                SHIFT_RIGHT_32 => registers[destination] >>= constant,
                MOVE_32 => registers[destination] = constant,
                JUMP_EQUAL_32 if registers[destination] == constant => at += offset,
                JUMP_UNEQUAL_32 if registers[destination] != constant => at += offset,
                JUMP_EQUAL_32 | JUMP_UNEQUAL_32 => {}
                0x95 => return registers[0] == 1,
                other => panic!("operation {other:#x}"),
            }
        }
    }

    fn listed(json: serde_json::Value) -> Result<Vec<DeviceRule>, String> {
        rules(&serde_json::from_value::<Vec<LinuxDeviceCgroup>>(json).unwrap())
    }

    #[test]
    fn the_default_devices_and_no_others() {
        let rules = listed(json!([])).unwrap();
        assert!(allows(&rules, CHARACTER, READ | WRITE, 1, 3));
        assert!(allows(&rules, CHARACTER, READ | WRITE, 136, 77));
        assert!(allows(&rules, BLOCK, MAKE_NODE, 254, 0));
        assert!(!allows(&rules, BLOCK, READ, 254, 0));
        assert!(!allows(&rules, CHARACTER, READ | MAKE_NODE, 10, 229));
        assert!(!allows(&rules, CHARACTER, READ, 1, 1));
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rules = listed(json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "access": "rwm" },
            { "allow": false, "type": "c", "major": 10, "minor": 229, "access": "w" },
        ]))
        .unwrap();
        assert!(allows(&rules, CHARACTER, READ | WRITE, 10, 200));
        assert!(allows(&rules, CHARACTER, READ, 10, 229));
        assert!(!allows(&rules, CHARACTER, READ | WRITE, 10, 229));
        assert!(!allows(&rules, BLOCK, READ, 10, 200));
        assert!(allows(&rules, CHARACTER, READ, 1, 5));
    }

    #[test]
    fn everything_can_be_allowed_or_denied() {
        let open = listed(json!([{ "allow": true, "type": "a", "access": "rwm" }])).unwrap();
        assert!(allows(&open, BLOCK, READ | WRITE | MAKE_NODE, 254, 0));
        let closed = listed(json!([{ "allow": true, "access": "rwm" }, { "allow": false, "access": "rwm" }])).unwrap();
        assert!(!allows(&closed, CHARACTER, READ, 1, 3));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(listed(json!([{ "allow": true, "access": "x" }])).is_err());
        assert!(listed(json!([{ "allow": true, "type": "p" }])).is_err());
        assert!(listed(json!([{ "allow": true, "type": "c", "major": -2 }])).is_err());
        let many: Vec<_> = (0..=RULES_MAX).map(|_| json!({ "allow": true })).collect();
        assert!(listed(json!(many)).is_err());
    }
}
