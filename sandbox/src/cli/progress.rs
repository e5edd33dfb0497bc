//! Progress of a pull on stderr: bars on a terminal, a line per step elsewhere, nothing when it is not wanted.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sandbox::image::{LayerSummary, NoProgress, Progress, ProgressEvent};

use super::complain;
use super::format::human_bytes;

/// Digits of a digest that tell layers apart, as docker shows them.
const DIGEST_DIGITS: usize = 12;

/// The progress for this command.
pub(crate) fn progress(quiet: bool) -> Arc<dyn Progress> {
    match (quiet, std::io::stderr().is_terminal()) {
        (true, _) => Arc::new(NoProgress),
        (false, true) => Arc::new(Bars::default()),
        (false, false) => Arc::new(Lines::default()),
    }
}

fn short(layer: &LayerSummary) -> String {
    layer.digest.hex().chars().take(DIGEST_DIGITS).collect()
}

/// One bar a layer, removed at the end: what follows on the terminal is the guest's.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    layers: Mutex<Vec<Option<ProgressBar>>>,
}

impl Bars {
    fn with_layer(&self, layer: usize, act: impl FnOnce(&ProgressBar)) {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(bar)) = layers.get(layer) {
            act(bar);
        }
    }

    fn add(&self, layer: &LayerSummary) -> Option<ProgressBar> {
        if layer.present {
            return None;
        }
        let bar = self.all.add(ProgressBar::new(layer.size_bytes));
        let style = ProgressStyle::with_template("{prefix} {msg:11} {bar:30} {bytes:>11} of {total_bytes:11} {eta:>4}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(short(layer));
        bar.set_message("waiting");
        Some(bar)
    }

    fn advance(&self, layer: usize, what: &'static str, done_bytes: u64, total_bytes: u64) {
        self.with_layer(layer, |bar| {
            bar.set_message(what);
            bar.set_length(total_bytes);
            bar.set_position(done_bytes);
        });
    }
}

impl Progress for Bars {
    fn event(&self, event: ProgressEvent<'_>) {
        match event {
            ProgressEvent::Resolving { .. } => {}
            ProgressEvent::Layers { layers } => {
                let bars = layers.iter().map(|layer| self.add(layer)).collect();
                *self.layers.lock().unwrap_or_else(PoisonError::into_inner) = bars;
            }
            ProgressEvent::Downloading { layer, done_bytes, total_bytes } => {
                self.advance(layer, "downloading", done_bytes, total_bytes);
            }
            ProgressEvent::Unpacking { layer, done_bytes, total_bytes } => {
                self.advance(layer, "unpacking", done_bytes, total_bytes);
            }
            ProgressEvent::LayerDone { layer } => self.with_layer(layer, |bar| bar.finish_with_message("done")),
            // The bars have nothing left to say, and the terminal may be gone.
            ProgressEvent::Done { .. } => drop(self.all.clear()),
        }
    }
}

/// A line when there is something to fetch, and one for each layer that is there.
#[derive(Default)]
struct Lines {
    layers: Mutex<Vec<LayerSummary>>,
}

impl Progress for Lines {
    fn event(&self, event: ProgressEvent<'_>) {
        match event {
            ProgressEvent::Layers { layers } => {
                let missing: Vec<_> = layers.iter().filter(|layer| !layer.present).collect();
                if !missing.is_empty() {
                    let bytes = missing.iter().map(|layer| layer.size_bytes).fold(0, u64::saturating_add);
                    complain(&format!("taking in {} layer(s), {}", missing.len(), human_bytes(bytes)));
                }
                *self.layers.lock().unwrap_or_else(PoisonError::into_inner) = layers.to_vec();
            }
            ProgressEvent::LayerDone { layer } => {
                let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(layer) = layers.get(layer) {
                    complain(&format!("layer {} is unpacked ({})", short(layer), human_bytes(layer.size_bytes)));
                }
            }
            ProgressEvent::Resolving { .. }
            | ProgressEvent::Downloading { .. }
            | ProgressEvent::Unpacking { .. }
            | ProgressEvent::Done { .. } => {}
        }
    }
}
