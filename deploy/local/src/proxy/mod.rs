//! A TCP proxy within this process, between a program and a server, that injects network faults.
//!
//! It does not inspect the data that passes through. Every fault applies to open and to new connections; a connection
//! that is cut ends with a reset on both sides, as when a machine has died.

mod link;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

pub use link::ProxiedLink;

/// Bytes per read.
const CHUNK: usize = 32 * 1024;
/// Delayed chunks per connection. Past it the server has to wait, as on a real network.
const MAX_DELAYED: usize = 256;
/// Pause after a failed accept, which is a fault of this machine (no file descriptors left), not of the client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The controls of a proxy; clones control the same proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    faults: watch::Sender<Faults>,
    open: AtomicUsize,
    dropped_bytes: AtomicU64,
}

/// The faults in force.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    refuse: bool,
    delay: Duration,
    drop_responses: bool,
    stall: bool,
    lose_requests: bool,
    lose_responses: bool,
    /// Incremented by each cut: a connection that began under another number ends.
    cuts: u64,
}

impl Faults {
    const fn hold_requests(self) -> bool {
        self.stall || self.lose_requests
    }

    const fn hold_responses(self) -> bool {
        self.stall || self.lose_responses
    }

    const fn is_black_hole(self) -> bool {
        self.lose_requests || self.lose_responses
    }
}

impl Proxy {
    /// A proxy without faults that does not listen yet.
    pub(crate) fn new() -> Self {
        let (faults, _) = watch::channel(Faults::default());
        let shared = Shared { faults, open: AtomicUsize::new(0), dropped_bytes: AtomicU64::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// Forwards the connections of `listener` to `server`, until the runtime ends.
    pub(crate) async fn serve(self, listener: TcpListener, server: SocketAddr) {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Subscribed before connecting to the server: a cut in between applies to this connection as well.
            let faults = self.shared.faults.subscribe();
            if faults.borrow().refuse {
                reset(&client);
                continue;
            }
            tokio::spawn(connection(client, server, faults, Arc::clone(&self.shared)));
        }
    }

    /// Resets every open connection on both sides. Returns how many there were.
    pub fn cut(&self) -> usize {
        let open = self.connections();
        self.change(|faults| faults.cuts += 1);
        open
    }

    /// Whether new connections are reset at once. Open ones stay: see [`Proxy::cut`].
    pub fn refuse(&self, refuse: bool) {
        self.change(|faults| faults.refuse = refuse);
    }

    /// Delays every response by this much; zero for no delay. It adds latency and does not limit throughput.
    pub fn delay(&self, delay: Duration) {
        self.change(|faults| faults.delay = delay);
    }

    /// While set, requests reach the server and are executed, but their responses are dropped. Unsetting it cuts all
    /// connections, because bytes are missing in their streams: to a client, the result of its request is unknown.
    pub fn drop_responses(&self, drop_responses: bool) {
        self.change(|faults| {
            faults.cuts += u64::from(faults.drop_responses && !drop_responses);
            faults.drop_responses = drop_responses;
        });
    }

    /// While set, no data passes in either direction, and connections stay open.
    pub fn stall(&self, stall: bool) {
        self.change(|faults| faults.stall = stall);
    }

    /// While set, every packet in these directions is lost, as on a line that has become a black hole: neither data nor the
    /// end of a connection passes, and no side gets a reset. What was sent meanwhile arrives afterwards, as TCP sends it
    /// again.
    pub fn black_hole(&self, requests: bool, responses: bool) {
        self.change(|faults| (faults.lose_requests, faults.lose_responses) = (requests, responses));
    }

    /// Ends all faults. Cuts all connections if responses were being dropped.
    pub fn clear_faults(&self) {
        self.drop_responses(false);
        self.change(|faults| *faults = Faults { cuts: faults.cuts, ..Faults::default() });
    }

    /// The number of open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Bytes of responses that were dropped so far.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.shared.dropped_bytes.load(Ordering::SeqCst)
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.faults.send_modify(change);
    }
}

/// One client connection, from accept to close.
async fn connection(
    mut client: TcpStream,
    server: SocketAddr,
    faults: watch::Receiver<Faults>,
    shared: Arc<Shared>,
) {
    let begun = faults.borrow().cuts;
    let Ok(mut server) = TcpStream::connect(server).await else {
        // What the client would see without a proxy: connection refused.
        reset(&client);
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let _open = Open::count(&shared);
    let (mut cuts, mut holes) = (faults.clone(), faults.clone());
    let is_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let forwarding = async {
            tokio::select! {
                _ = forward_requests(from_client, to_server, faults.clone()) => {}
                () = forward_responses(from_server, to_client, faults, &shared) => {}
            }
            // The other side does not notice the end of this one.
            until(&mut holes, |faults| !faults.is_black_hole()).await;
        };
        tokio::select! {
            _ = cuts.wait_for(|faults| faults.cuts != begun) => true,
            () = forwarding => false,
        }
    };
    if is_cut {
        reset(&client);
        reset(&server);
    }
}

async fn forward_requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Faults>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        until(&mut faults, |faults| !faults.hold_requests()).await;
        to.write_all(chunk.get(..length).unwrap_or_default()).await?;
    }
}

/// Reads and writes concurrently, so that a delay adds latency and does not limit throughput.
async fn forward_responses(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut faults: watch::Receiver<Faults>,
    shared: &Shared,
) {
    let (received, mut delayed) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_DELAYED);
    let current = faults.clone();
    let reading = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            if !from.read_buf(&mut chunk).await.is_ok_and(|length| length > 0) {
                return;
            }
            let faults = *current.borrow();
            if faults.drop_responses {
                let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                shared.dropped_bytes.fetch_add(length, Ordering::SeqCst);
            } else if received.send((Instant::now() + faults.delay, chunk)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = delayed.recv().await {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            until(&mut faults, |faults| !faults.hold_responses()).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

async fn until(faults: &mut watch::Receiver<Faults>, passes: impl Fn(Faults) -> bool) {
    // An error means that the proxy was dropped, and this connection with it.
    drop(faults.wait_for(|faults| passes(*faults)).await.map(drop));
}

/// Makes the stream end with a reset when it is dropped.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().ok();
}

/// Counts an open connection until it is dropped.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn count(shared: &'a Shared) -> Self {
        shared.open.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
