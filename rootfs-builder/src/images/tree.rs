//! A file tree in memory: metadata and small contents here, large contents still in the tar archive they came from.
//!
//! Nothing is unpacked to disk, so building an image needs no privilege and keeps owners and devices as they are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tar::EntryType;

use crate::{Error, digest};

/// Prefix of the PAX records that carry extended attributes.
const XATTR: &str = "SCHILY.xattr.";

/// Paths relative to the root, in an order in which folders come before what is in them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree(pub(super) BTreeMap<PathBuf, Node>);

/// A file of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) permissions: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds since 1970.
    pub(super) mtime: u64,
    /// Extended attributes, by full name.
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) kind: Kind,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    /// Names with the same content object are hard links to each other.
    File(Arc<Content>),
    Symlink(PathBuf),
    CharacterDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// The bytes of a file. Two are equal when their digests are.
#[derive(Debug)]
pub(super) struct Content {
    sha256: [u8; 32],
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    Archive { path: Arc<PathBuf>, offset: u64, bytes: u64 },
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }
}

impl Eq for Content {}

impl Content {
    pub(super) fn bytes(&self) -> u64 {
        match &self.place {
            Place::Memory(bytes) => bytes.len() as u64,
            Place::Archive { bytes, .. } => *bytes,
        }
    }

    pub(super) fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        match &self.place {
            Place::Memory(bytes) => Ok(Box::new(Cursor::new(bytes))),
            Place::Archive { path, offset, bytes } => {
                let mut file = File::open(path.as_path())?;
                file.seek(SeekFrom::Start(*offset))?;
                Ok(Box::new(file.take(*bytes)))
            }
        }
    }
}

impl Node {
    /// A node that belongs to root and has no attributes.
    pub(super) fn new(kind: Kind, permissions: u32) -> Self {
        Self { permissions, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new(), kind }
    }

    pub(super) fn file(bytes: impl Into<Vec<u8>>, permissions: u32) -> Self {
        let bytes = bytes.into();
        let content = Content { sha256: Sha256::digest(&bytes).into(), place: Place::Memory(bytes) };
        Self::new(Kind::File(Arc::new(content)), permissions)
    }

    pub(super) fn symlink(target: impl Into<PathBuf>) -> Self {
        Self::new(Kind::Symlink(target.into()), 0o777)
    }

    pub(super) fn is_folder(&self) -> bool {
        self.kind == Kind::Folder
    }
}

impl Tree {
    /// Reads a tar archive, which must stay where it is while the tree is used.
    pub(super) fn from_tar(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let shared = Arc::new(path.to_path_buf());
        let mut tree = Self::default();
        let mut archive = tar::Archive::new(file);
        for entry in archive.entries().map_err(Error::io("read", path))? {
            let mut entry = entry.map_err(Error::io("read", path))?;
            tree.add_entry(&mut entry, &shared)?;
        }
        Ok(tree)
    }

    fn add_entry(&mut self, entry: &mut tar::Entry<'_, File>, archive: &Arc<PathBuf>) -> Result<(), Error> {
        let io_error = Error::io("read", archive.as_path());
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let bad = |why| Error::Entry { archive: archive.to_path_buf(), name: name.clone(), why };
        let path = relative(&name).ok_or_else(|| bad("the path leaves the root"))?;
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let link = || {
            let name = entry.link_name_bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            name.ok_or_else(|| bad("a link without a target"))
        };
        let header = entry.header();
        let device = || Some((header.device_major().ok()??, header.device_minor().ok()??));
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Symlink(link()?.into()),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => device().map(|(a, b)| Kind::CharacterDevice(a, b)).ok_or_else(|| bad("no numbers"))?,
            EntryType::Block => device().map(|(a, b)| Kind::BlockDevice(a, b)).ok_or_else(|| bad("no numbers"))?,
            EntryType::Link => {
                let target = relative(&link()?).and_then(|target| self.0.get(&target));
                target.ok_or_else(|| bad("a hard link to a file that does not come before it"))?.kind.clone()
            }
            EntryType::Regular | EntryType::Continuous => {
                let place = (entry.raw_file_position(), entry.size());
                let (digest, _) = digest::of_reader(entry).map_err(io_error)?;
                let sha256 = hex::decode(digest).ok().and_then(|bytes| bytes.try_into().ok());
                let sha256 = sha256.ok_or_else(|| bad("no digest"))?;
                let (offset, bytes) = place;
                Kind::File(Arc::new(Content { sha256, place: Place::Archive { path: archive.clone(), offset, bytes } }))
            }
            _ => return Err(bad("unknown type")),
        };
        let node = node_of(entry, kind).map_err(Error::io("read", archive.as_path()))?;
        self.0.insert(path, node);
        Ok(())
    }

    /// Adds a node, and the folders that lead to it where there are none.
    pub(super) fn add(&mut self, path: impl Into<PathBuf>, node: Node) {
        let path = path.into();
        for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            self.0.entry(folder.to_path_buf()).or_insert_with(|| Node::new(Kind::Folder, 0o755));
        }
        self.0.insert(path, node);
    }

    /// Whether there is a folder at this path; the root always is one.
    pub(super) fn has_folder(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || self.0.get(path).is_some_and(Node::is_folder)
    }
}

/// Metadata of an archive's entry.
fn node_of(entry: &mut tar::Entry<'_, File>, kind: Kind) -> io::Result<Node> {
    let mut xattrs = BTreeMap::new();
    if let Some(records) = entry.pax_extensions()? {
        for record in records {
            let record = record?;
            if let Some(name) = record.key().ok().and_then(|key| key.strip_prefix(XATTR)) {
                xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
            }
        }
    }
    let header = entry.header();
    Ok(Node {
        permissions: header.mode()? & 0o7777,
        uid: header.uid()?,
        gid: header.gid()?,
        mtime: header.mtime()?,
        xattrs,
        kind,
    })
}

/// An archive's name as a path below the root, or `None` if it leads out of it.
fn relative(name: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_and_stay_inside() {
        assert_eq!(relative("./a/b"), Some("a/b".into()));
        assert_eq!(relative("/a"), Some("a".into()));
        assert_eq!(relative("./"), Some("".into()));
        assert_eq!(relative("a/../../b"), None);
    }

    #[test]
    fn folders_are_added_on_the_way() {
        let mut tree = Tree::default();
        tree.add("a/b/c", Node::file("x", 0o600));
        let paths: Vec<_> = tree.0.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["a", "a/b", "a/b/c"]);
        assert!(tree.has_folder(Path::new("")) && tree.has_folder(Path::new("a")));
        assert!(!tree.has_folder(Path::new("a/b/c")));
    }
}
