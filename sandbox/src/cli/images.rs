//! `sandbox pull`, `images` and `rmi`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use sandbox::image::{ImageSource, ImageSummary, PullPolicy};
use serde::Serialize;

use super::Format;
use super::context::HostContext;
use super::format::{human_age, human_bytes, print, print_json, print_table};
use super::progress::progress;

/// Digits of an image id in a table.
const ID_DIGITS: usize = 12;

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Reference in a registry, `oci:DIR[:TAG]` or `docker-archive:FILE`
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Fetches an image; prints its id.
pub(crate) async fn pull(args: PullArgs) -> anyhow::Result<()> {
    let source: ImageSource = args.image.parse()?;
    let images = HostContext::open()?.images()?;
    let image = tokio::select! {
        image = images.resolve(&source, PullPolicy::Always, progress(args.quiet)) => image?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("cannot catch SIGINT")?;
            anyhow::bail!("interrupted; what was downloaded is kept and continued by the next pull");
        }
    };
    print(&format!("{} {}", image.id, image.reference))
}

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// How to print the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Listing {
    images: Vec<ImageSummary>,
}

/// Lists the stored images.
pub(crate) fn list(args: &ImagesArgs) -> anyhow::Result<()> {
    let images = HostContext::open()?.images()?.list()?;
    if args.format == Format::Json {
        return print_json(Listing { images });
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let rows = images.iter().map(|image| row(image, now_s)).collect();
    print_table(["IMAGE", "ID", "LAYERS", "SIZE", "STORED"], rows)
}

fn row(image: &ImageSummary, now_s: u64) -> [String; 5] {
    [
        image.reference.clone(),
        image.id.hex().chars().take(ID_DIGITS).collect(),
        image.layers.to_string(),
        human_bytes(image.size_bytes),
        human_age(now_s.saturating_sub(image.stored_at_unix_s)),
    ]
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// References or starts of ids, as `sandbox images` shows them
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Removes images; prints the names that are gone. One that cannot be removed does not keep the others.
pub(crate) fn remove(args: &RmiArgs) -> anyhow::Result<()> {
    let images = HostContext::open()?.images()?;
    let mut failures = Vec::new();
    for name in &args.images {
        match images.remove(name) {
            Ok(gone) => gone.iter().try_for_each(|reference| print(reference))?,
            Err(error) => failures.push(format!("{:#}", anyhow::Error::new(error))),
        }
    }
    anyhow::ensure!(failures.is_empty(), failures.join("\n"));
    Ok(())
}
