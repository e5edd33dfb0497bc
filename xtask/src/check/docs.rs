//! Paths that the documentation names: each must exist, so that the map stays true.

use std::path::Path;

use anyhow::{Context, bail};

use crate::paths::Paths;

/// The documents that are looked at, besides everything in `docs/`.
const DOCUMENTS: &[&str] = &["README.md"];

/// Looks at every path in backquotes or a link.
pub(super) fn check(paths: &Paths) -> anyhow::Result<()> {
    let mut documents: Vec<_> = DOCUMENTS.iter().map(|name| paths.root.join(name)).collect();
    for entry in std::fs::read_dir(paths.root.join("docs")).context("docs")? {
        documents.push(entry?.path());
    }
    let mut wrong = Vec::new();
    for document in documents.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(document).with_context(|| document.display().to_string())?;
        let folder = document.parent().unwrap_or(&paths.root);
        wrong.extend(missing(&text, &paths.root, folder).iter().map(|path| format!("{}: {path}", document.display())));
    }
    if !wrong.is_empty() {
        bail!("named but not there:\n{}", wrong.join("\n"));
    }
    Ok(())
}

/// Paths in `text` that exist neither below `root` nor, for a link, beside the document in `folder`.
fn missing(text: &str, root: &Path, folder: &Path) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2).filter(|word| is_source_path(word, root)).map(|word| (word, root));
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links = links.filter(|link| !link.contains("://") && !link.starts_with('#')).map(|word| (word, folder));
    quoted
        .chain(links)
        .filter(|(word, base)| {
            let path = word.split(['#', ':']).next().unwrap_or_default();
            !base.join(path).exists()
        })
        .map(|(word, _)| word.to_owned())
        .collect()
}

/// Whether `word` is meant as a path of the source tree: relative, and its first part is a folder of the root, or it
/// ends like a source file.
fn is_source_path(word: &str, root: &Path) -> bool {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    if !plain || word.starts_with('/') || word.starts_with("target/") {
        return false;
    }
    match word.split_once('/') {
        Some((first, rest)) => !rest.is_empty() && root.join(first).is_dir() || rest.ends_with(".rs"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_is_found_and_prose_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("vmm/src")).unwrap();
        std::fs::write(root.path().join("vmm/src/main.rs"), "").unwrap();
        let text = "`vmm/src/main.rs`, `vmm/src/gone.rs`, `/dev/kvm`, `a/b`, `-v SRC:DST`, `away/x.rs` [x](gone.md) [y](https://x/y)";
        assert_eq!(missing(text, root.path(), root.path()), ["vmm/src/gone.rs", "away/x.rs", "gone.md"]);
    }
}
