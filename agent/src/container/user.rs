//! Who a process is: numbers, or names looked up in the container's own `/etc/passwd` and `/etc/group`.
//!
//! Static glibc has no NSS, and the container's files are hostile: they are read up to a bound, from regular files only,
//! and lines that do not parse are passed over.

use std::io::Read;

use rustix::fs::{FileType, Gid, OFlags, Uid};

use super::report::{Doing, Failure, FailureKind};
use super::resolve::Root;
use crate::plan::UserPlan;

/// Most bytes that are read of a passwd or group file.
const FILE_MAX: u64 = 1024 * 1024;
/// Most supplementary groups, the kernel's limit.
const GROUPS_MAX: usize = 65536;
/// HOME of a user without an entry.
const NO_HOME: &str = "/";

/// User and groups of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// One line of a passwd file.
#[derive(Debug)]
struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// One line of a group file.
#[derive(Debug)]
struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Finds out who the process is.
pub(super) fn resolve(root: &Root, plan: &UserPlan) -> Result<Identity, Failure> {
    let passwd = read_file(root, "/etc/passwd")?;
    match plan {
        UserPlan::Ids { uid, gid, additional_gids } => {
            let home = passwd_entries(&passwd).find(|entry| entry.uid == *uid).map_or(NO_HOME, |entry| entry.home);
            Ok(Identity { uid: *uid, gid: *gid, groups: additional_gids.clone(), home: home.to_owned() })
        }
        UserPlan::Lookup { name, additional_gids } => {
            let mut identity = look_up(name, &passwd, &read_file(root, "/etc/group")?)?;
            identity.groups.extend(additional_gids);
            Ok(identity)
        }
    }
}

/// Becomes that user, keeping the capabilities until they are set on their own.
pub(super) fn become_user(identity: &Identity) -> Result<(), Failure> {
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_keep_capabilities(true).doing(|| "keep capabilities".into())?;
    rustix::thread::set_thread_groups(&groups).doing(|| format!("set {} groups", groups.len()))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing(|| format!("become group {}", identity.gid))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing(|| format!("become user {}", identity.uid))?;
    rustix::thread::set_keep_capabilities(false).doing(|| "keep no capabilities".into())
}

fn look_up(text: &str, passwd: &str, group: &str) -> Result<Identity, Failure> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let mut identity = find_user(user, passwd)?;
    match wanted_group {
        Some(name) => identity.gid = find_group(name, group)?,
        None => {
            // Groups belong to a name, so a number without an entry has none.
            let name = passwd_entries(passwd).find(|e| e.name == user || e.uid == identity.uid).map(|e| e.name);
            let is_member = |entry: &GroupEntry<'_>| name.is_some_and(|n| entry.members.split(',').any(|m| m == n));
            identity.groups = group_entries(group).filter(is_member).map(|entry| entry.gid).take(GROUPS_MAX).collect();
        }
    }
    Ok(identity)
}

/// A name wins over a number, and an empty user is root, as docker has it.
fn find_user(user: &str, passwd: &str) -> Result<Identity, Failure> {
    let number = if user.is_empty() { Some(0) } else { parse_id(user) };
    let entry = passwd_entries(passwd)
        .find(|entry| entry.name == user)
        .or_else(|| passwd_entries(passwd).find(|entry| Some(entry.uid) == number));
    match (entry, number) {
        (Some(entry), _) => {
            Ok(Identity { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home: entry.home.to_owned() })
        }
        (None, Some(uid)) => Ok(Identity { uid, gid: 0, groups: Vec::new(), home: NO_HOME.to_owned() }),
        (None, None) => Err(Failure::invalid(format!(
            "unable to find user {user}: no matching entries in the container's /etc/passwd"
        ))),
    }
}

fn find_group(name: &str, group: &str) -> Result<u32, Failure> {
    group_entries(group).find(|entry| entry.name == name).map(|entry| entry.gid).or_else(|| parse_id(name)).ok_or_else(
        || Failure::invalid(format!("unable to find group {name}: no matching entries in the container's /etc/group")),
    )
}

/// Ids end at 2^31 - 1 in docker and runc; beyond are mistakes, and -1 means "unchanged" to the kernel.
fn parse_id(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id <= i32::MAX.unsigned_abs())
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let mut fields = fields.skip(1);
        let (uid, gid) = (parse_id(fields.next()?)?, parse_id(fields.next()?)?);
        let home = fields.nth(1).filter(|home| !home.is_empty()).unwrap_or(NO_HOME);
        Some(PasswdEntry { name, uid, gid, home })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = parse_id(fields.nth(1)?)?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// Reads a file of the container; one that is missing or not a regular file is empty.
fn read_file(root: &Root, path: &str) -> Result<String, Failure> {
    // Opened as a place first: opening a device or a fifo for reading can block or have effects.
    let Ok(place) = root.locate(path) else { return Ok(String::new()) };
    let stat = rustix::fs::fstat(&place).doing(|| format!("look at {path}"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(String::new());
    }
    let Ok(file) = root.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(FailureKind::Internal, format!("read {path}: {error}")))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_MAX) {
        return Err(Failure::invalid(format!("the container's {path} is longer than {FILE_MAX} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken line\nweb:x:33:33::/srv/www:/bin/false\n\
                          huge:x:4294967295:1::/:\n1000:x:7:7::/seven:\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:web\naudio:x:29:someone,web\nbad:x:-1:web\n";

    fn found(text: &str) -> Identity {
        look_up(text, PASSWD, GROUP).unwrap()
    }

    #[test]
    fn a_name_brings_its_groups_and_home() {
        let expected = Identity { uid: 33, gid: 33, groups: vec![33, 29], home: "/srv/www".into() };
        assert_eq!(found("web"), expected);
        assert_eq!(found("33"), expected);
    }

    #[test]
    fn an_explicit_group_replaces_all() {
        assert_eq!(found("web:audio"), Identity { uid: 33, gid: 29, groups: vec![], home: "/srv/www".into() });
        assert_eq!(found("web:12"), Identity { uid: 33, gid: 12, groups: vec![], home: "/srv/www".into() });
    }

    #[test]
    fn a_number_needs_no_entry() {
        assert_eq!(found("4711"), Identity { uid: 4711, gid: 0, groups: vec![], home: "/".into() });
    }

    #[test]
    fn a_name_of_digits_wins_over_the_number() {
        assert_eq!(found("1000").uid, 7);
    }

    #[test]
    fn an_empty_user_is_root() {
        assert_eq!(found(":audio"), Identity { uid: 0, gid: 29, groups: vec![], home: "/root".into() });
    }

    #[test]
    fn unknown_names_are_named() {
        let user = look_up("ghost", PASSWD, GROUP).unwrap_err();
        assert_eq!(user.kind, FailureKind::Invalid);
        assert!(user.message.contains("unable to find user ghost"), "{}", user.message);
        let group = look_up("web:ghosts", PASSWD, GROUP).unwrap_err();
        assert!(group.message.contains("unable to find group ghosts"), "{}", group.message);
    }

    #[test]
    fn ids_outside_the_range_are_not_ids() {
        for text in ["-1", "4294967295", "2147483648", "+5", "0x10", "99999999999999999999"] {
            assert!(look_up(text, PASSWD, GROUP).is_err(), "{text}");
        }
        assert!(look_up("huge", PASSWD, GROUP).is_err());
    }
}
