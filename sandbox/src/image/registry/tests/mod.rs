//! Pulls from Debian's `docker-registry` on loopback, filled by `skopeo`.

mod login;
mod pulls;
mod server;

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::super::fixtures::{Layer, TarBuilder, layout};
use super::super::{Image, ImageError, Images, Progress, ProgressEvent, PullPolicy};

/// Two layers; the upper one does not compress, so that there is something to break off.
fn sample_layers() -> Vec<Layer> {
    let mut seed = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    })
    .take(700_000)
    .collect();
    vec![
        Layer::gzip(TarBuilder::default().dir("etc", 0o755).file("etc/os", b"sample").end()),
        Layer::gzip(TarBuilder::default().file("noise", &noise).end()),
    ]
}

/// A layout with [`sample_layers`] under the tag `v1`.
fn sample_layout(dir: &Path) -> String {
    layout(&dir.join("layout"), "v1", &sample_layers(), r#"{"Cmd":["/bin/true"]}"#);
    format!("oci:{}:v1", dir.join("layout").display())
}

/// Keeps how far each layer's download had come when it was first reported.
#[derive(Default)]
struct FirstBytes(Mutex<Vec<(usize, u64)>>);

impl Progress for FirstBytes {
    fn event(&self, event: ProgressEvent<'_>) {
        if let ProgressEvent::Downloading { layer, done_bytes, .. } = event {
            let mut seen = self.0.lock().unwrap();
            if !seen.iter().any(|(known, _)| *known == layer) {
                seen.push((layer, done_bytes));
            }
        }
    }
}

impl FirstBytes {
    fn of(&self, layer: usize) -> Option<u64> {
        self.0.lock().unwrap().iter().find(|(known, _)| *known == layer).map(|(_, bytes)| *bytes)
    }
}

fn pull(images: &Images, name: &str, progress: Arc<dyn Progress>) -> Result<Image, ImageError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(images.resolve(&name.parse().unwrap(), PullPolicy::Missing, progress))
}
