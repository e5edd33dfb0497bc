//! What must hold of the source before anything is run: formatting, lints, licences, the direction of dependencies, and
//! that the documentation names files that exist.

mod arrows;
mod docs;
mod licences;

use crate::cargo;
use crate::paths::Paths;
use crate::process;
use crate::step::step;

/// A named check.
type Check = (&'static str, fn(&Paths) -> anyhow::Result<()>);

const CHECKS: &[Check] = &[
    ("formatting", |paths| process::run(cargo::command(paths).args(["fmt", "--all", "--check"]))),
    ("dependency arrows", |paths| arrows::check(paths)),
    ("paths in the documentation", |paths| docs::check(paths)),
    ("licences, bans and advisories", |paths| licences::check(paths)),
    ("lints", |paths| {
        process::run(cargo::command(paths).args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
    }),
];

/// Runs every check, whatever fails; the names of those that passed and of those that failed.
pub(crate) fn run(paths: &Paths) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for (name, check) in CHECKS {
        match step(&format!("check: {name}"), || check(paths)) {
            Ok(()) => passed.push((*name).to_owned()),
            Err(error) => {
                eprintln!("{error:#}");
                failed.push((*name).to_owned());
            }
        }
    }
    Ok((passed, failed))
}
