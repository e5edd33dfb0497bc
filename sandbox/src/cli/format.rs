//! Results on stdout: a table for people, JSON with a version for programs.

use std::io::Write as _;

use anyhow::Context as _;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

/// Version of the JSON that every command prints; raised when a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// One JSON object with a schema version
    Json,
}

#[derive(Serialize)]
struct Versioned<T> {
    schema_version: u32,
    #[serde(flatten)]
    value: T,
}

/// Prints an object as JSON, its schema's version first.
pub(crate) fn print_json(value: impl Serialize) -> anyhow::Result<()> {
    print(&to_json(value)?)
}

/// An object as JSON, its schema's version first.
pub(crate) fn to_json(value: impl Serialize) -> anyhow::Result<String> {
    serde_json::to_string_pretty(&Versioned { schema_version: SCHEMA_VERSION, value }).context("cannot write JSON")
}

/// Prints rows under headings.
pub(crate) fn print_table<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings).add_rows(rows);
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    print(&lines.join("\n"))
}

/// Prints text and a newline.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to stdout")
}

/// A size as people read it.
pub(crate) fn human_bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// How long ago something was, in its largest unit.
pub(crate) fn human_age(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_carries_its_version_beside_the_value() {
        #[derive(Serialize)]
        struct Listing {
            images: Vec<u32>,
        }
        let json: serde_json::Value = serde_json::from_str(&to_json(Listing { images: vec![7] }).unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({ "schema_version": 1, "images": [7] }));
    }

    #[test]
    fn ages_have_one_unit() {
        assert_eq!(human_age(0), "0 seconds ago");
        assert_eq!(human_age(119), "1 minute ago");
        assert_eq!(human_age(7200), "2 hours ago");
        assert_eq!(human_age(1_000_000), "11 days ago");
    }
}
