//! Names of entries, made relative and harmless before anything touches the file system.

use super::super::excerpt::excerpt_bytes;
use super::error::EntryProblem;

/// NAME_MAX of Linux.
const NAME_MAX_BYTES: usize = 255;
/// PATH_MAX of Linux without the final NUL.
const PATH_MAX_BYTES: usize = 4095;
/// Deeper trees are refused: removing them again would need a descriptor for every level.
pub(super) const DEPTH_MAX: usize = 256;

/// A path below the layer's root: no empty component, no `.` or `..`, no slash at either end. Empty is the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Takes an entry's name; an absolute one counts from the layer's root, as every unpacker does it.
    pub(super) fn new(raw: &[u8]) -> Result<Self, EntryProblem> {
        Self::parse(raw, || EntryProblem::DotDot)
    }

    /// Takes the target of a hard link, which is a name in the same layer.
    pub(super) fn link_target(raw: &[u8]) -> Result<Self, EntryProblem> {
        Self::parse(raw, || EntryProblem::LinkDotDot { target: excerpt_bytes(raw) })
    }

    fn parse(raw: &[u8], dot_dot: impl Fn() -> EntryProblem) -> Result<Self, EntryProblem> {
        if raw.contains(&0) {
            return Err(EntryProblem::BadName { what: "a NUL byte in its name" });
        }
        let mut path = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for component in raw.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(dot_dot()),
                _ => {}
            }
            if component.len() > NAME_MAX_BYTES {
                let length = component.len();
                return Err(EntryProblem::TooLong { part: "name", length, limit: NAME_MAX_BYTES });
            }
            depth += 1;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
        if path.len() > PATH_MAX_BYTES {
            return Err(EntryProblem::TooLong { part: "path", length: path.len(), limit: PATH_MAX_BYTES });
        }
        if depth > DEPTH_MAX {
            return Err(EntryProblem::TooDeep { limit: DEPTH_MAX });
        }
        Ok(Self(path))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory and the name in it; `None` for the root.
    pub(super) fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => {
                let (dir, name) = self.0.split_at(slash);
                Some((Self(dir.to_vec()), name.get(1..).unwrap_or_default()))
            }
            None => Some((Self::default(), &self.0)),
        }
    }

    /// `self/name`, for a name that was a component already.
    pub(super) fn join(&self, name: &[u8]) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }

    /// The components, outermost first.
    pub(super) fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &str) -> Result<String, EntryProblem> {
        EntryPath::new(raw.as_bytes()).map(|path| String::from_utf8(path.0).unwrap())
    }

    #[test]
    fn names_become_relative_and_plain() {
        assert_eq!(parse("./usr//bin/./env/"), Ok("usr/bin/env".to_owned()));
        assert_eq!(parse("/etc/passwd"), Ok("etc/passwd".to_owned()));
        assert_eq!(parse("./"), Ok(String::new()));
        assert_eq!(parse("..."), Ok("...".to_owned()));
    }

    #[test]
    fn what_leads_out_or_is_too_long_is_refused() {
        assert_eq!(parse("../x"), Err(EntryProblem::DotDot));
        assert_eq!(parse("a/../../x"), Err(EntryProblem::DotDot));
        assert_eq!(parse("/.."), Err(EntryProblem::DotDot));
        assert_eq!(parse("a\0b"), Err(EntryProblem::BadName { what: "a NUL byte in its name" }));
        assert!(parse(&"n".repeat(255)).is_ok());
        assert_eq!(parse(&"n".repeat(256)), Err(EntryProblem::TooLong { part: "name", length: 256, limit: 255 }));
        assert!(parse(&"d/".repeat(256)).is_ok());
        assert_eq!(parse(&"d/".repeat(257)), Err(EntryProblem::TooDeep { limit: 256 }));
        let long = format!("{}/", "n".repeat(255)).repeat(17);
        assert_eq!(parse(&long), Err(EntryProblem::TooLong { part: "path", length: 4351, limit: 4095 }));
    }

    #[test]
    fn split_and_join_are_inverse() {
        let path = EntryPath::new(b"a/b/c").unwrap();
        let (dir, name) = path.split().unwrap();
        assert_eq!((dir.as_bytes(), name), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(dir.join(name), path);
        assert_eq!(EntryPath::new(b"a").unwrap().split(), Some((EntryPath::default(), &b"a"[..])));
        assert_eq!(EntryPath::default().split(), None);
    }
}
