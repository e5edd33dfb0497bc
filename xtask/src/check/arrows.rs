//! The direction of dependencies between the workspace's crates, as docs/architecture.md draws it.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::cargo;
use crate::paths::Paths;
use crate::process;

/// Which crates of the workspace each crate may depend on. Nothing links `vmm`: it is spawned, so that a crash, a seccomp
/// filter and a memory budget belong to one pod.
const ALLOWED: &[(&str, &[&str])] = &[
    ("agent", &["bulkhead-protocols"]),
    ("bulkhead-protocols", &[]),
    ("bulkhead-tests", &["bulkhead-protocols", "sandbox"]),
    ("guest-kernel", &[]),
    ("rootfs-builder", &[]),
    ("sandbox", &["bulkhead-protocols"]),
    ("shim", &["bulkhead-protocols", "sandbox"]),
    ("vmm", &["bulkhead-protocols"]),
    ("xtask", &["bulkhead-protocols", "guest-kernel", "rootfs-builder"]),
];

/// Compares the workspace with [`ALLOWED`].
pub(super) fn check(paths: &Paths) -> anyhow::Result<()> {
    let text = process::output(cargo::command(paths).args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("the output of cargo metadata")?;
    let wrong = violations(&metadata);
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// The part of `cargo metadata` that counts.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// Set for crates of this workspace alone.
    path: Option<String>,
}

fn violations(metadata: &Metadata) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let Some(allowed) = allowed.get(package.name.as_str()) else {
            wrong.push(format!("the crate {} has no entry in the table of allowed dependencies", package.name));
            continue;
        };
        let inner = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
        for dependency in inner.filter(|dependency| !allowed.contains(&dependency.name.as_str())) {
            let list = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
            wrong.push(format!(
                "{} depends on {}; of this workspace it may depend on {list}",
                package.name, dependency.name
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(name: &str, dependency: &str) -> Metadata {
        let dependencies = vec![Dependency { name: dependency.to_owned(), path: Some("/x".to_owned()) }];
        Metadata { packages: vec![Package { name: name.to_owned(), dependencies }] }
    }

    #[test]
    fn an_arrow_in_the_drawn_direction_is_right() {
        assert!(violations(&workspace("sandbox", "bulkhead-protocols")).is_empty());
    }

    #[test]
    fn an_arrow_against_it_is_wrong() {
        let wrong = violations(&workspace("bulkhead-protocols", "sandbox"));
        assert!(wrong.join("").contains("bulkhead-protocols depends on sandbox"), "{wrong:?}");
        assert_eq!(violations(&workspace("sandbox", "vmm")).len(), 1);
    }

    #[test]
    fn a_crate_that_is_not_in_the_table_is_wrong() {
        assert!(violations(&workspace("newcomer", "vmm")).join("").contains("newcomer"));
    }
}
