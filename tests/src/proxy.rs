//! A TCP proxy on loopback that cuts a connection after so many bytes: a network that fails half-way.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Forwards every connection to one address, for as long as the test process lives.
pub struct Proxy {
    address: SocketAddr,
    connections: Arc<AtomicU32>,
    bytes: Arc<AtomicU64>,
}

impl Proxy {
    /// Forwards to `target`, and cuts each of the first `cuts` connections that brings more than `after_bytes`.
    ///
    /// # Panics
    ///
    /// If loopback has no free port.
    pub fn cutting(target: SocketAddr, after_bytes: u64, cuts: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("a listener has an address");
        let connections = Arc::new(AtomicU32::new(0));
        let bytes = Arc::new(AtomicU64::new(0));
        let left = Arc::new(AtomicU32::new(cuts));
        let counters = (Arc::clone(&connections), Arc::clone(&bytes));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                counters.0.fetch_add(1, Ordering::Relaxed);
                let Ok(server) = TcpStream::connect(target) else { continue };
                let (upward_from, upward_to) = (client.try_clone(), server.try_clone());
                if let (Ok(from), Ok(to)) = (upward_from, upward_to) {
                    std::thread::spawn(move || forward(from, to, u64::MAX, &AtomicU32::new(0), &AtomicU64::new(0)));
                }
                let (left, bytes) = (Arc::clone(&left), Arc::clone(&counters.1));
                std::thread::spawn(move || forward(server, client, after_bytes, &left, &bytes));
            }
        });
        Self { address, connections, bytes }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Bytes brought back from the target so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Copies one direction until its end; cuts both once `limit` bytes have passed and `cuts` are left.
fn forward(mut from: TcpStream, mut to: TcpStream, limit: u64, cuts: &AtomicU32, total: &AtomicU64) {
    let mut passed = 0;
    let mut buffer = [0; 4096];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
        passed += u64::try_from(count).expect("a small number");
        total.fetch_add(u64::try_from(count).expect("a small number"), Ordering::Relaxed);
        let cut = passed > limit
            && cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if cut {
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
