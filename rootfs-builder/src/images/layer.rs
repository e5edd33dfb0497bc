//! Writes a tree as a layer: a gzip-compressed tar archive (OCI image specification, layer.md).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

use super::tree::{Content, Kind, Node, Tree};
use crate::digest::HashingWriter;

/// What a manifest and a config say about a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    /// SHA-256 of the uncompressed archive, hexadecimal.
    pub(super) diff_id: String,
    /// SHA-256 of the compressed file, hexadecimal.
    pub(super) digest: String,
    /// Length of the compressed file.
    pub(super) bytes: u64,
}

/// Writes a tree to a new file. The same tree gives the same bytes.
pub(super) fn write(tree: &Tree, path: &Path) -> io::Result<Layer> {
    let file = HashingWriter::new(BufWriter::new(File::create(path)?));
    // No file name, no time, unknown system.
    let gzip = GzBuilder::new().mtime(0).operating_system(255).write(file, Compression::default());
    let mut archive = tar::Builder::new(HashingWriter::new(gzip));
    let mut written = HashMap::new();
    for (path, node) in &tree.0 {
        append(&mut archive, path, node, &mut written)?;
    }
    let (gzip, diff_id, _) = archive.into_inner()?.finish();
    let (mut file, digest, bytes) = gzip.finish()?.finish();
    file.flush()?;
    Ok(Layer { diff_id, digest, bytes })
}

/// Adds one node. `written` remembers under which name each content is in the archive, for hard links.
fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &Path,
    node: &Node,
    written: &mut HashMap<*const Content, PathBuf>,
) -> io::Result<()> {
    if !node.xattrs.is_empty() {
        let records: Vec<_> = node.xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value)).collect();
        archive.append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), value.as_slice())))?;
    }
    let mut header = Header::new_gnu();
    header.set_mode(node.permissions);
    header.set_uid(node.uid);
    header.set_gid(node.gid);
    header.set_mtime(node.mtime);
    header.set_size(0);
    let entry_type = match &node.kind {
        Kind::Folder => EntryType::Directory,
        Kind::Fifo => EntryType::Fifo,
        Kind::CharacterDevice(major, minor) | Kind::BlockDevice(major, minor) => {
            header.set_device_major(*major)?;
            header.set_device_minor(*minor)?;
            if matches!(node.kind, Kind::BlockDevice(..)) { EntryType::Block } else { EntryType::Char }
        }
        Kind::Symlink(target) => {
            header.set_entry_type(EntryType::Symlink);
            return archive.append_link(&mut header, path, target);
        }
        Kind::File(content) => {
            if let Some(first) = written.get(&Arc::as_ptr(content)) {
                header.set_entry_type(EntryType::Link);
                return archive.append_link(&mut header, path, first);
            }
            written.insert(Arc::as_ptr(content), path.to_path_buf());
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.bytes());
            return archive.append_data(&mut header, path, content.open()?);
        }
    };
    header.set_entry_type(entry_type);
    archive.append_data(&mut header, path, io::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use sha2::{Digest, Sha256};
    use std::fs;
    use std::io::Read;

    fn every_kind() -> Tree {
        let mut tree = Tree::default();
        let file =
            Node { xattrs: [("user.x".to_owned(), b"y".to_vec())].into(), uid: 7, ..Node::file("hello", 0o4755) };
        tree.add("d/a", file.clone());
        tree.add("d/b", file);
        tree.add("d/link", Node::symlink("../d/a"));
        tree.add("null", Node::new(Kind::CharacterDevice(1, 3), 0o666));
        tree.add("fifo", Node::new(Kind::Fifo, 0o600));
        tree.add(format!("d/{}", "n".repeat(200)), Node::file("", 0o644));
        tree
    }

    #[test]
    fn digests_are_those_of_the_bytes_and_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        let layer = write(&every_kind(), &first).unwrap();
        assert_eq!(write(&every_kind(), &second).unwrap(), layer);
        let compressed = fs::read(&first).unwrap();
        assert_eq!(layer.bytes, compressed.len() as u64);
        assert_eq!(layer.digest, hex::encode(Sha256::digest(&compressed)));
        let mut plain = Vec::new();
        GzDecoder::new(compressed.as_slice()).read_to_end(&mut plain).unwrap();
        assert_eq!(layer.diff_id, hex::encode(Sha256::digest(&plain)));
    }

    #[test]
    fn a_tree_is_read_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (packed, plain) = (folder.path().join("layer.tar.gz"), folder.path().join("layer.tar"));
        write(&every_kind(), &packed).unwrap();
        let mut bytes = Vec::new();
        GzDecoder::new(File::open(&packed).unwrap()).read_to_end(&mut bytes).unwrap();
        fs::write(&plain, bytes).unwrap();
        let read = Tree::from_tar(&plain).unwrap();
        assert_eq!(read.0.keys().collect::<Vec<_>>(), every_kind().0.keys().collect::<Vec<_>>());
        for (path, node) in &every_kind().0 {
            // PAX records and owners of a hard link are those of the file it links to.
            if !path.ends_with("b") {
                assert_eq!(read.0.get(path), Some(node), "{}", path.display());
            }
        }
        let content = |path: &str| match &read.0[Path::new(path)].kind {
            Kind::File(content) => Arc::as_ptr(content),
            _ => panic!("{path} is no file"),
        };
        assert_eq!(content("d/a"), content("d/b"), "a hard link stays one");
    }
}
