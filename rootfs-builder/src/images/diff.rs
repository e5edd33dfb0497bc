//! The layer that turns one tree into another (OCI image specification, layer.md, "Whiteouts").
//!
//! A removed file becomes an empty file `.wh.NAME`; a folder of which nothing is left as it was in the lower tree is
//! marked by `.wh..wh..opq` instead of one whiteout for each of its files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::tree::{Node, Tree};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What has to be put on `lower` to get `upper`, with the folders that lead there.
pub(super) fn diff(lower: &Tree, upper: &Tree) -> Tree {
    let mut layer = Tree::default();
    for (path, node) in &upper.0 {
        if lower.0.get(path) != Some(node) {
            add_with_folders(&mut layer, upper, path, node.clone());
        }
    }
    let emptied = emptied_folders(lower, upper);
    for folder in &emptied {
        add_with_folders(&mut layer, upper, &folder.join(OPAQUE), Node::file("", 0o644));
    }
    for path in lower.0.keys().filter(|path| !upper.0.contains_key(*path)) {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            continue;
        };
        // Below a removed, replaced or opaque folder there is nothing left to remove.
        if upper.has_folder(folder) && !emptied.contains(folder) {
            let whiteout = folder.join(format!("{WHITEOUT}{name}"));
            add_with_folders(&mut layer, upper, &whiteout, Node::file("", 0o644));
        }
    }
    layer
}

/// Folders of both trees that had something in the lower one, nothing of which is in the upper one.
fn emptied_folders(lower: &Tree, upper: &Tree) -> BTreeSet<PathBuf> {
    let mut had_something = BTreeSet::new();
    let mut kept_something = BTreeSet::new();
    for path in lower.0.keys() {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            had_something.insert(folder.to_path_buf());
            if upper.0.contains_key(path) {
                kept_something.insert(folder.to_path_buf());
            }
        }
    }
    had_something.retain(|folder| !kept_something.contains(folder) && upper.has_folder(folder));
    had_something
}

fn add_with_folders(layer: &mut Tree, upper: &Tree, path: &Path, node: Node) {
    for folder in path.ancestors().skip(1) {
        if let Some(found) = upper.0.get(folder) {
            layer.0.entry(folder.to_path_buf()).or_insert_with(|| found.clone());
        }
    }
    layer.0.insert(path.to_path_buf(), node);
}

#[cfg(test)]
mod tests {
    use super::super::tree::Kind;
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, content) in files {
            match *content {
                "/" => tree.add(*path, Node::new(Kind::Folder, 0o755)),
                _ => tree.add(*path, Node::file(*content, 0o644)),
            }
        }
        tree
    }

    fn names(lower: &[(&str, &str)], upper: &[(&str, &str)]) -> Vec<String> {
        diff(&tree(lower), &tree(upper)).0.keys().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn equal_trees_differ_in_nothing() {
        assert!(names(&[("a/b", "1")], &[("a/b", "1")]).is_empty());
    }

    #[test]
    fn new_and_changed_files_come_with_their_folders() {
        let lower = [("a/b/old", "1"), ("a/same", "2")];
        let upper = [("a/b/old", "changed"), ("a/same", "2"), ("a/c/new", "3")];
        assert_eq!(names(&lower, &upper), ["a", "a/b", "a/b/old", "a/c", "a/c/new"]);
    }

    #[test]
    fn a_change_of_metadata_is_a_change() {
        let (lower, mut upper) = (tree(&[("f", "1")]), tree(&[("f", "1")]));
        upper.0.get_mut(Path::new("f")).unwrap().uid = 5;
        assert_eq!(diff(&lower, &upper).0.len(), 1);
    }

    #[test]
    fn a_removed_file_is_whited_out_and_a_removed_folder_once() {
        let lower = [("a/gone", "1"), ("a/kept", "2"), ("gone/x/y", "3")];
        assert_eq!(names(&lower, &[("a/kept", "2")]), [".wh.gone", "a", "a/.wh.gone"]);
    }

    #[test]
    fn a_folder_without_survivors_is_opaque() {
        let lower = [("d/one", "1"), ("d/sub/two", "2")];
        assert_eq!(names(&lower, &[("d/other", "3")]), ["d", "d/.wh..wh..opq", "d/other"]);
        assert_eq!(names(&lower, &[("d", "/")]), ["d", "d/.wh..wh..opq"]);
    }

    #[test]
    fn a_folder_replaced_by_a_file_needs_no_whiteouts() {
        assert_eq!(names(&[("d/one", "1")], &[("d", "file")]), ["d"]);
        assert_eq!(names(&[("d", "file")], &[("d/one", "1")]), ["d", "d/one"]);
    }
}
