//! A TCP proxy within this process, between a program and a server, that does to connections what networks do.
//!
//! What passes through it is not looked at. Every control acts on the connections that are open and on those to come;
//! a connection that is cut ends with a reset on both sides, as when a machine is gone.

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

/// How much is read at once, in bytes.
const CHUNK: usize = 32 * 1024;
/// Chunks that may wait for their time on one connection; past it the server has to wait, as on a real line.
const ON_THE_WAY: usize = 256;
/// After a failure to accept, which is one of this machine (no file handles left), not of the client.
const BREATHER: Duration = Duration::from_millis(10);

/// The controls of one proxy; clones control the same one.
#[derive(Clone, Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rules: watch::Sender<Rules>,
    open: AtomicUsize,
    swallowed: AtomicU64,
}

/// What is done at present.
#[derive(Clone, Copy, Debug, Default)]
struct Rules {
    refuse: bool,
    delay: Duration,
    swallow: bool,
    halt: bool,
    /// Grows with each cut: a connection that began under another number ends.
    cuts: u64,
}

impl Proxy {
    /// A proxy that hurts nobody yet and listens nowhere.
    pub(crate) fn new() -> Self {
        let (rules, _) = watch::channel(Rules::default());
        Self { shared: Arc::new(Shared { rules, open: AtomicUsize::new(0), swallowed: AtomicU64::new(0) }) }
    }

    /// Passes on what comes to `listener`, until the runtime ends.
    pub(crate) async fn serve(self, listener: TcpListener, server: SocketAddr) {
        loop {
            let Ok((client, _)) = listener.accept().await else {
                sleep(BREATHER).await;
                continue;
            };
            // Under the rules of now: a cut that comes while the server is being connected to holds for it as well.
            let rules = self.shared.rules.subscribe();
            if rules.borrow().refuse {
                reset(&client);
                continue;
            }
            tokio::spawn(connection(client, server, rules, Arc::clone(&self.shared)));
        }
    }

    /// Ends every connection that is open now, with a reset on both sides. Answers how many there were.
    pub fn cut(&self) -> usize {
        let open = self.connections();
        self.change(|rules| rules.cuts += 1);
        open
    }

    /// Whether new connections are reset at once. Those that are open stay: see [`Proxy::cut`].
    pub fn refuse(&self, refuse: bool) {
        self.change(|rules| rules.refuse = refuse);
    }

    /// How long every answer of the server is on its way, on top of what it takes anyhow; zero for no delay. It is
    /// the time that it takes, not how much passes: answers follow each other as they did before.
    pub fn delay(&self, delay: Duration) {
        self.change(|rules| rules.delay = delay);
    }

    /// While it is on, requests reach the server and are carried out, but no answer comes back. Switching it off cuts
    /// all connections, because what is missing in the middle of them can never be made good: whoever waits has lost
    /// an acknowledgement, and knows only that.
    pub fn swallow(&self, swallow: bool) {
        self.change(|rules| {
            rules.cuts += u64::from(rules.swallow && !swallow);
            rules.swallow = swallow;
        });
    }

    /// While it is on, nothing passes in either direction, and nobody is told so: connections stay open.
    pub fn halt(&self, halt: bool) {
        self.change(|rules| rules.halt = halt);
    }

    /// Everything passes again. Ends with a cut if answers were being swallowed.
    pub fn heal(&self) {
        self.swallow(false);
        self.change(|rules| *rules = Rules { cuts: rules.cuts, ..Rules::default() });
    }

    /// How many connections lead through it now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Bytes of answers that were swallowed so far.
    #[must_use]
    pub fn swallowed(&self) -> u64 {
        self.shared.swallowed.load(Ordering::SeqCst)
    }

    fn change(&self, change: impl FnOnce(&mut Rules)) {
        self.shared.rules.send_modify(change);
    }
}

/// One connection of a client, from its beginning to its end.
async fn connection(
    mut client: TcpStream,
    server: SocketAddr,
    rules: watch::Receiver<Rules>,
    shared: Arc<Shared>,
) {
    let begun = rules.borrow().cuts;
    let Ok(mut server) = TcpStream::connect(server).await else {
        // As the client would see it without us: nobody is there.
        reset(&client);
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let _open = Open::count(&shared);
    let mut cuts = rules.clone();
    let is_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _ = cuts.wait_for(|rules| rules.cuts != begun) => true,
            _ = requests(from_client, to_server, rules.clone()) => false,
            () = answers(from_server, to_client, rules, &shared) => false,
        }
    };
    if is_cut {
        reset(&client);
        reset(&server);
    }
}

async fn requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut rules: watch::Receiver<Rules>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        not_halted(&mut rules).await;
        to.write_all(chunk.get(..length).unwrap_or_default()).await?;
    }
}

/// Reading and writing apart, so that a delay takes time from each answer and no throughput from all.
async fn answers(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut rules: watch::Receiver<Rules>,
    shared: &Shared,
) {
    let (arrived, mut on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let present = rules.clone();
    let reading = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            if !from.read_buf(&mut chunk).await.is_ok_and(|length| length > 0) {
                return;
            }
            let rules = *present.borrow();
            if rules.swallow {
                let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                shared.swallowed.fetch_add(length, Ordering::SeqCst);
            } else if arrived.send((Instant::now() + rules.delay, chunk)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, chunk)) = on_the_way.recv().await {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            not_halted(&mut rules).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

async fn not_halted(rules: &mut watch::Receiver<Rules>) {
    // An error means that the proxy is gone, and with it this connection.
    drop(rules.wait_for(|rules| !rules.halt).await.map(drop));
}

/// The other side is told by a reset, once the stream is dropped.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().ok();
}

/// Counts a connection for as long as it lives, however it ends.
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
#[path = "proxy_tests.rs"]
mod tests;
