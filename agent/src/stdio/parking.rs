//! Streams that the host has opened and no process has taken yet. Owns them; their number and their stay are bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_vsock::VsockStream;

use super::header::{StreamKey, StreamKind};
use crate::server::Refusal;

/// Most streams parked at a time.
const PARKED_MAX: usize = 192;
/// How long a stream waits for its process.
const STAY_MAX: Duration = Duration::from_secs(10);

/// A stream, and what its opener sent right behind the header.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: VsockStream,
    pub(crate) early: Vec<u8>,
}

/// The streams of one process.
#[derive(Debug, Default)]
pub(crate) struct ProcessStreams {
    pub(crate) stdin: Option<Stream>,
    pub(crate) stdout: Option<Stream>,
    pub(crate) stderr: Option<Stream>,
}

/// The car park.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    streams: HashMap<StreamKey, Parked>,
}

/// A stream in its place, and the task that ends its stay.
#[derive(Debug)]
struct Parked {
    stream: Stream,
    expiry: AbortHandle,
}

impl Parked {
    fn leave(self) -> Stream {
        self.expiry.abort();
        self.stream
    }
}

impl Parking {
    /// Whether a stream of that name could be parked now.
    pub(crate) fn check(&self, key: &StreamKey) -> Result<(), &'static str> {
        let places = self.lock();
        if places.streams.contains_key(key) {
            return Err("stream is open already");
        }
        if places.streams.len() >= PARKED_MAX { Err("too many streams wait for their process") } else { Ok(()) }
    }

    /// Keeps a stream until its process comes, or until it has waited too long.
    pub(crate) fn park(self: &Arc<Self>, key: StreamKey, stream: Stream) {
        let (parking, expired) = (Arc::clone(self), key.clone());
        let expiry = tokio::spawn(async move {
            tokio::time::sleep(STAY_MAX).await;
            parking.lock().streams.remove(&expired);
        });
        let expiry = expiry.abort_handle();
        self.lock().streams.insert(key, Parked { stream, expiry });
    }

    /// Closes the streams that a process would have had.
    pub(crate) fn discard(&self, container_id: &str, process_id: &str) {
        let mut places = self.lock();
        for kind in [StreamKind::Stdin, StreamKind::Stdout, StreamKind::Stderr] {
            let key = StreamKey { container_id: container_id.into(), process_id: process_id.into(), kind };
            places.streams.remove(&key).map(Parked::leave);
        }
    }

    /// Hands out the wanted streams of a process, all or none.
    pub(crate) fn take(
        &self,
        container_id: &str,
        process_id: &str,
        wanted: &[StreamKind],
    ) -> Result<ProcessStreams, Refusal> {
        let key = |kind| StreamKey { container_id: container_id.into(), process_id: process_id.into(), kind };
        let mut places = self.lock();
        if let Some(kind) = wanted.iter().find(|kind| !places.streams.contains_key(&key(**kind))) {
            let name = kind.name();
            return Err(Refusal::precondition(format!(
                "stdio.{name}: no stream \"{container_id} {process_id} {name}\" has been opened"
            )));
        }
        let mut take = |kind| {
            let stream = wanted.contains(&kind).then(|| places.streams.remove(&key(kind)));
            stream.flatten().map(Parked::leave)
        };
        Ok(ProcessStreams {
            stdin: take(StreamKind::Stdin),
            stdout: take(StreamKind::Stdout),
            stderr: take(StreamKind::Stderr),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
