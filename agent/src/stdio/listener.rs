//! Accepts stdio streams: reads the header, answers, parks the stream.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_protocols::wire::{STDIO_ACCEPTED, STDIO_HEADER_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio_vsock::{VsockListener, VsockStream};

use super::header;
use super::parking::{Parking, Stream};

/// Most streams whose header is awaited at a time; further ones wait in the listener's backlog.
const GREETING_MAX: usize = 32;
/// How long a header may take.
const HEADER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Accepts streams for as long as the agent lives.
pub(crate) async fn serve(listener: VsockListener, parking: Arc<Parking>) {
    let greeting = Arc::new(Semaphore::new(GREETING_MAX));
    loop {
        let Ok(permit) = Arc::clone(&greeting).acquire_owned().await else { return };
        let socket = crate::server::listen::accept(&listener).await;
        let parking = Arc::clone(&parking);
        tokio::spawn(async move {
            // A host that sends nothing, or rubbish, loses its connection; there is nothing to report here.
            let _ = tokio::time::timeout(HEADER_WAIT_MAX, greet(socket, &parking)).await;
            drop(permit);
        });
    }
}

async fn greet(mut socket: VsockStream, parking: &Arc<Parking>) -> std::io::Result<()> {
    let mut received = Vec::with_capacity(STDIO_HEADER_MAX);
    let line_end = loop {
        if let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            break end;
        }
        let room = STDIO_HEADER_MAX.saturating_sub(received.len());
        if room == 0 {
            return refuse(socket, "header is too long").await;
        }
        if (&mut socket).take(room as u64).read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    };
    let early = received.split_off(line_end + 1);
    received.truncate(line_end);
    let key = match header::parse(&received).and_then(|key| parking.check(&key).map(|()| key)) {
        Ok(key) => key,
        Err(why) => return refuse(socket, why).await,
    };
    socket.write_all(STDIO_ACCEPTED.as_bytes()).await?;
    // No other task runs between the end of the write and this.
    parking.park(key, Stream { socket, early });
    Ok(())
}

async fn refuse(mut socket: VsockStream, why: &str) -> std::io::Result<()> {
    socket.write_all(format!("ERR {why}\n").as_bytes()).await?;
    socket.shutdown(std::net::Shutdown::Write)
}
