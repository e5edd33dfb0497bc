//! `sandbox version`: this command, the protocol it speaks, and the guest that is installed beside it.

use bulkhead_protocols::wire::PROTOCOL_VERSION;
use clap::Args;
use sandbox::paths::Paths;
use serde::Serialize;
use serde_json::Value;

use super::Format;
use super::format::{print_json, print_table};

/// What the guest's builder leaves beside the guest.
const MANIFEST: &str = "manifest.json";

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// How to print the versions
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Versions {
    version: &'static str,
    protocol_version: u32,
    /// The guest's manifest; null if none is installed.
    guest: Value,
}

/// Prints the versions.
pub(crate) fn version(args: &VersionArgs) -> anyhow::Result<()> {
    let guest = Paths::from_environment().map_or(Value::Null, |paths| manifest(&paths));
    let versions = Versions { version: env!("CARGO_PKG_VERSION"), protocol_version: PROTOCOL_VERSION, guest };
    if args.format == Format::Json {
        return print_json(versions);
    }
    let of_guest = |pointer| text(&versions.guest, pointer);
    let row = |name: &str, version: String| [name.to_owned(), version];
    print_table(
        ["PART", "VERSION"],
        vec![
            row("sandbox", versions.version.to_owned()),
            row("agent protocol", versions.protocol_version.to_string()),
            row("guest image", of_guest("/version")),
            row("guest kernel", of_guest("/kernel/version")),
        ],
    )
}

/// The installed guest's manifest; null if there is none.
pub(crate) fn manifest(paths: &Paths) -> Value {
    let bytes = std::fs::read(paths.lib.join(MANIFEST)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

/// The text at `pointer` of a manifest.
pub(crate) fn text(manifest: &Value, pointer: &str) -> String {
    manifest.pointer(pointer).and_then(Value::as_str).unwrap_or("unknown").to_owned()
}
