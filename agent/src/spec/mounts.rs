//! The `mounts` array: options in words become attributes, propagation, and parameters of the file system.

use oci_spec::runtime::Mount;

use super::{SpecError, check_absolute, check_no_nul, path_text};
use crate::plan::{MountPlan, MountSource, Propagation};
use crate::sys::mount_attr::MountChange;

/// All bits that say how access times are kept: changing one clears the others first (mount_setattr(2)).
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

/// Mount attributes: the word, the bits it sets, the bits it clears. With `r` before, it goes for everything below too.
const ATTRIBUTES: [(&str, u64, u64); 17] = [
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ("relatime", libc::MOUNT_ATTR_RELATIME, ATIME),
    ("norelatime", 0, ATIME),
    ("noatime", libc::MOUNT_ATTR_NOATIME, ATIME),
    ("atime", 0, ATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, ATIME),
];

/// Propagation types; with `r` before, for everything below too.
const PROPAGATION: [(&str, u64); 4] = [
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("private", libc::MS_PRIVATE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Words that ask for what is the case anyway.
const NEUTRAL: [&str; 6] = ["defaults", "async", "nomand", "nolazytime", "loud", "nostrictatime"];

/// Words that are not implemented, and that a file system must not see as parameters.
const REFUSED: [&str; 5] = ["remount", "tmpcopyup", "idmap", "ridmap", "iversion"];

/// Checks all mounts.
pub(super) fn plan(mounts: &[Mount]) -> Result<Vec<MountPlan>, SpecError> {
    mounts.iter().enumerate().map(|(index, mount)| plan_one(&format!("mounts[{index}]"), mount)).collect()
}

/// What the options of one mount add up to.
#[derive(Debug, Default)]
struct Options {
    bind: Option<bool>,
    change: MountChange,
    recursive_change: MountChange,
    propagation: Option<Propagation>,
    parameters: Vec<(String, Option<String>)>,
}

fn plan_one(property: &str, mount: &Mount) -> Result<MountPlan, SpecError> {
    let destination = path_text(property, mount.destination())?;
    check_absolute(&format!("{property}.destination"), &destination)?;
    let mut options = Options::default();
    for option in mount.options().iter().flatten() {
        check_no_nul(&format!("{property}.options"), option)?;
        read_option(option, &mut options).map_err(|why| format!("{property}.options: {option:?} {why}"))?;
    }
    let source = mount.source().as_ref().map(|path| path_text(property, path)).transpose()?;
    let fs_type = mount.typ().clone().unwrap_or_default();
    let parameters = std::mem::take(&mut options.parameters);
    let source = match (options.bind.or((fs_type == "bind").then_some(false)), fs_type.as_str()) {
        (Some(recursive), _) => bind_source(property, source, recursive, &parameters)?,
        (None, "cgroup" | "cgroup2") => cgroup_source(property, &parameters)?,
        (None, "") => return Err(format!("{property}.type is missing, and the options do not say bind")),
        (None, _) => new_source(property, fs_type, source, parameters)?,
    };
    let Options { change, recursive_change, propagation, .. } = options;
    Ok(MountPlan { destination, source, change, recursive_change, propagation })
}

fn read_option(option: &str, options: &mut Options) -> Result<(), &'static str> {
    if NEUTRAL.contains(&option) || option.is_empty() {
        return Ok(());
    }
    if REFUSED.contains(&option) || option.starts_with("idmap=") || option.starts_with("ridmap=") {
        return Err("is not supported");
    }
    match option {
        "bind" => options.bind = options.bind.or(Some(false)),
        "rbind" => options.bind = Some(true),
        _ if read_attribute(option, options) || read_propagation(option, options) => {}
        _ => options.parameters.push(match option.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (option.to_owned(), None),
        }),
    }
    Ok(())
}

fn read_attribute(option: &str, options: &mut Options) -> bool {
    let find = |word: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == word);
    let (found, change) = match (find(option), option.strip_prefix('r').and_then(find)) {
        (Some(found), _) => (found, &mut options.change),
        (None, Some(found)) => (found, &mut options.recursive_change),
        (None, None) => return false,
    };
    let (_, set, clear) = *found;
    // The last word counts.
    let subject = set | clear;
    change.set = (change.set & !subject) | set;
    change.clear = (change.clear & !set) | clear;
    true
}

fn read_propagation(option: &str, options: &mut Options) -> bool {
    let find = |word: &str| PROPAGATION.iter().find(|(known, _)| *known == word).map(|(_, flag)| *flag);
    let found = match (find(option), option.strip_prefix('r').and_then(find)) {
        (Some(flag), _) => Propagation { flag, recursive: false },
        (None, Some(flag)) => Propagation { flag, recursive: true },
        (None, None) => return false,
    };
    options.propagation = Some(found);
    true
}

fn bind_source(
    property: &str,
    source: Option<String>,
    recursive: bool,
    parameters: &[(String, Option<String>)],
) -> Result<MountSource, SpecError> {
    let path = source.ok_or_else(|| format!("{property}.source is missing"))?;
    check_absolute(&format!("{property}.source"), &path)?;
    if let Some((key, _)) = parameters.first() {
        return Err(format!("{property}.options: {key:?} means nothing to a bind mount"));
    }
    Ok(MountSource::Bind { path, recursive })
}

fn cgroup_source(property: &str, parameters: &[(String, Option<String>)]) -> Result<MountSource, SpecError> {
    match parameters.first() {
        Some((key, _)) => Err(format!("{property}.options: {key:?} is not supported for a cgroup mount")),
        None => Ok(MountSource::Cgroup),
    }
}

fn new_source(
    property: &str,
    fs_type: String,
    source: Option<String>,
    options: Vec<(String, Option<String>)>,
) -> Result<MountSource, SpecError> {
    check_no_nul(&format!("{property}.type"), &fs_type)?;
    // File systems without a source show its name in /proc/mounts.
    let source = source.unwrap_or_else(|| fs_type.clone());
    check_no_nul(&format!("{property}.source"), &source)?;
    Ok(MountSource::New { fs_type, source, options })
}

/// `linux.rootfsPropagation`.
pub(super) fn root_propagation(word: &str) -> Result<Propagation, SpecError> {
    let mut options = Options::default();
    if read_propagation(word, &mut options) {
        options.propagation.ok_or_else(String::new)
    } else {
        Err(format!("linux.rootfsPropagation is {word:?}, none of [r]shared, [r]slave, [r]private, [r]unbindable"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: serde_json::Value) -> Result<MountPlan, SpecError> {
        plan_one("mounts[0]", &serde_json::from_value(json).unwrap())
    }

    #[test]
    fn a_tmpfs_keeps_its_parameters() {
        let plan = planned(serde_json::json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}))
        .unwrap();
        let options = vec![("mode".into(), Some("755".into())), ("size".into(), Some("65536k".into()))];
        assert_eq!(plan.source, MountSource::New { fs_type: "tmpfs".into(), source: "tmpfs".into(), options });
        assert_eq!(plan.change.set, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(plan.change.clear, ATIME);
    }

    #[test]
    fn the_last_word_counts() {
        let plan = planned(serde_json::json!({"destination": "/v", "type": "bind", "source": "/s",
            "options": ["rbind", "ro", "rw", "rro", "noexec", "rprivate"]}))
        .unwrap();
        assert_eq!(plan.source, MountSource::Bind { path: "/s".into(), recursive: true });
        assert_eq!(plan.change.set, libc::MOUNT_ATTR_NOEXEC);
        assert_eq!(plan.change.clear, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(plan.recursive_change, MountChange::set(libc::MOUNT_ATTR_RDONLY));
        assert_eq!(plan.propagation, Some(Propagation { flag: libc::MS_PRIVATE, recursive: true }));
    }

    #[test]
    fn words_that_could_be_mistaken() {
        // "rw" is no recursive "w", and "relatime" and "rbind" are words of their own.
        let plan = planned(serde_json::json!({"destination": "/v", "type": "bind", "source": "/s",
            "options": ["rw", "relatime"]}))
        .unwrap();
        assert_eq!(plan.recursive_change, MountChange::default());
        assert_eq!(plan.change, MountChange { set: 0, clear: libc::MOUNT_ATTR_RDONLY | ATIME, propagation: 0 });
    }

    #[test]
    fn what_is_not_implemented_is_named() {
        for (option, named) in [("tmpcopyup", "tmpcopyup"), ("idmap=x", "idmap=x"), ("remount", "remount")] {
            let error = planned(serde_json::json!({"destination": "/t", "type": "tmpfs", "options": [option]}));
            assert!(error.unwrap_err().contains(named), "{option}");
        }
        let unknown = planned(serde_json::json!({"destination": "/t", "type": "bind", "source": "/s",
            "options": ["frobnicate"]}));
        assert!(unknown.unwrap_err().contains("frobnicate"));
    }

    #[test]
    fn paths_are_checked() {
        assert!(planned(serde_json::json!({"destination": "v", "type": "bind", "source": "/s"})).is_err());
        assert!(planned(serde_json::json!({"destination": "/v", "type": "bind", "source": "s"})).is_err());
        assert!(planned(serde_json::json!({"destination": "/v", "type": "bind"})).is_err());
        assert!(planned(serde_json::json!({"destination": "/v\u{0}", "type": "bind", "source": "/s"})).is_err());
        assert!(planned(serde_json::json!({"destination": "/v"})).is_err());
    }
}
