//! The counters of one VM: plain atomics by name, registered once, read through the control socket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// One monotonous count, shared by the thread that raises it and the control socket that reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The present value.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters by name (`<part>.<what>`, such as `fs.layers.lookup`).
#[derive(Debug, Default)]
pub(crate) struct Counters {
    by_name: Mutex<BTreeMap<String, Counter>>,
}

impl Counters {
    /// The counter of that name, made at zero on the first call. Names come from this program, never from a guest.
    pub(crate) fn counter(&self, name: &str) -> Counter {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.entry(name.to_owned()).or_default().clone()
    }

    /// Every name with its present value.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, u64> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.iter().map(|(name, counter)| (name.clone(), counter.get())).collect()
    }
}
