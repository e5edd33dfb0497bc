//! A whole specification, valid and with each thing wrong that can be.

use serde_json::{Value, json};

use super::*;
use crate::plan::{MountSource, UserPlan};

/// A specification as the sandbox library sends it.
fn valid() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false,
            "user": { "uid": 5, "gid": 6, "additionalGids": [7], "umask": 18 },
            "args": ["/bin/true", "-x"],
            "env": ["PATH=/bin"],
            "cwd": "/work",
            "capabilities": { "bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }],
            "noNewPrivileges": true,
            "oomScoreAdj": 100
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "box",
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "annotations": { "any": "thing" },
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "uts" }, { "type": "ipc" }],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "sysctl": { "net.core.somaxconn": "100", "net/ipv4/conf/eth0.1/forwarding": "1" },
            "cgroupsPath": "/pods/one",
            "resources": { "pids": { "limit": 9 } }
        }
    })
}

/// The valid specification with one value replaced.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    let mut spec = valid();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = spec.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items.push(value),
        other => other[name] = value,
    }
    serde_json::to_vec(&spec).unwrap()
}

fn refusal(pointer: &str, value: Value) -> String {
    container(&with(pointer, value)).expect_err(pointer)
}

#[test]
fn a_valid_specification_becomes_a_plan() {
    let spec = container(&serde_json::to_vec(&valid()).unwrap()).unwrap();
    assert_eq!(spec.process.user, UserPlan::Ids { uid: 5, gid: 6, additional_gids: vec![7] });
    assert_eq!((spec.process.umask, spec.process.capabilities.bounding), (Some(18), 0b10_0001));
    assert!(spec.root_read_only && spec.namespaces.pid && !spec.namespaces.network);
    assert_eq!(spec.cgroup_path.as_deref(), Some("pods/one"));
    assert_eq!(spec.cgroup_settings.len(), 1);
    let expected = [("net/core/somaxconn", "100"), ("net/ipv4/conf/eth0.1/forwarding", "1")];
    assert_eq!(spec.sysctls, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert!(matches!(&spec.mounts[0].source, MountSource::New { source, .. } if source == "proc"));
}

#[test]
fn every_refused_property_is_named() {
    let something = json!({ "a": 1 });
    for property in refused::CONTAINER {
        let mut spec = valid();
        let mut at = &mut spec;
        for name in property.split('.') {
            let (name, is_list) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
            at = &mut at[name];
            if is_list {
                at = &mut at[0];
            }
        }
        *at = something.clone();
        let error = container(&serde_json::to_vec(&spec).unwrap()).expect_err(property);
        assert!(error.contains(property), "{property}: {error}");
    }
}

#[test]
fn a_property_that_says_nothing_is_no_matter() {
    container(&with("/process/apparmorProfile", json!(""))).unwrap();
    container(&with("/linux/seccomp", Value::Null)).unwrap();
    container(&with("/hooks", json!({ "prestart": [] }))).unwrap();
    container(&with("/unknownToEverybody", json!({ "x": 1 }))).unwrap();
}

#[test]
fn wrong_values_are_named() {
    for (pointer, value, named) in [
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/process", Value::Null, "process"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!(["a\u{0}b"]), "process.args"),
        ("/process/cwd", json!("work"), "process.cwd"),
        ("/process/oomScoreAdj", json!(1001), "oomScoreAdj"),
        ("/process/rlimits/-", json!({ "type": "RLIMIT_CPU", "soft": 2, "hard": 1 }), "RLIMIT_CPU"),
        ("/process/rlimits/-", json!({ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 1 }), "twice"),
        ("/linux", Value::Null, "linux"),
        ("/linux/namespaces", json!([{ "type": "pid" }]), "mount namespace"),
        ("/linux/namespaces/-", json!({ "type": "user" }), "user"),
        ("/linux/namespaces/-", json!({ "type": "pid" }), "twice"),
        ("/linux/namespaces", json!([{ "type": "mount" }]), "hostname"),
        ("/linux/maskedPaths", json!(["relative"]), "maskedPaths"),
        ("/linux/cgroupsPath", json!("/a/../b"), "cgroupsPath"),
        ("/linux/sysctl", json!({ "kernel..x": "1" }), "sysctl"),
        ("/linux/sysctl", json!({ "../../x": "1" }), "sysctl"),
        ("/linux/rootfsPropagation", json!("sideways"), "rootfsPropagation"),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "c", "major": -1, "minor": 0 }]), "major"),
    ] {
        let error = refusal(pointer, value);
        assert!(error.contains(named), "{pointer}: {error}");
    }
}

#[test]
fn broken_json_is_refused() {
    for json in [&b""[..], b"{", b"[]", b"null", b"\xff", &b"[".repeat(100_000)] {
        assert!(container(json).is_err());
        assert!(process(json).is_err());
    }
}
