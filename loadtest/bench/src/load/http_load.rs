//! A cheap load generator: one thread, one readiness queue, requests that are serialised in advance, keep-alive, one request
//! at a time on each connection.
//!
//! Two models. **Closed**: every connection sends its next request when it has the last response; this measures the highest
//! rate. **Open**: requests are due at fixed times, independent of earlier responses; this measures latency at a load. The
//! time of a request starts when it was *due*: a server that stalls for a second is charged with all requests that were due
//! in it, not only with those in flight (coordinated omission). A request that finds no free connection within
//! [`Pace::Open::max_delay`] is not sent, and counted.
//!
//! A load may have a lead-in: the first requests find everything cold (queues, threads, caches, the young generation of the
//! collector), which is not the cost of the rate. They are sent, received and counted like all others, at the same rate and
//! without a pause after them, but their times are left out.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::arm::precise;
use crate::load::latencies::Latencies;

/// The queue's clock counts milliseconds; what is due sooner is slept for in steps of this.
const NAP: Duration = Duration::from_micros(100);
/// While nothing is to be sent, responses alone wake it.
const IDLE: Duration = Duration::from_millis(100);
const EVENTS: usize = 1_024;
/// Connections are there before the first request is due: for so long the server may accept them.
const ACCEPTED: Duration = Duration::from_millis(500);

/// What to send, and how.
pub struct Load<'a> {
    /// Where the server is.
    pub address: SocketAddr,
    /// How many connections there are.
    pub connections: usize,
    /// Which model.
    pub pace: Pace,
    /// Complete requests, used in rotation from `first` on.
    pub requests: &'a [Box<[u8]>],
    /// Number of the first request.
    pub first: u64,
    /// How many are sent.
    pub count: u64,
    /// When to give up, whatever has not been received.
    pub limit: Duration,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// When the response to the last one is there.
    Closed,
    /// So many a second.
    Open {
        /// How many.
        per_second: f64,
        /// How late a request may be sent because no connection is free.
        max_delay: Duration,
        /// Of what is due within this, no times are kept.
        lead_in: Duration,
    },
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Responses {
    /// How many responses, by HTTP status.
    pub counts: BTreeMap<u16, u64>,
    /// Times from due to received, by HTTP status; without the lead-in.
    times: BTreeMap<u16, Latencies>,
    /// Sent, and never received.
    pub without_response: u64,
    /// Never sent, because no connection was free in time.
    pub unsent: u64,
    /// From the first request to the last response.
    pub took: Duration,
}

impl Responses {
    /// How many had this status.
    #[must_use]
    pub fn count(&self, status: u16) -> u64 {
        self.counts.get(&status).copied().unwrap_or(0)
    }

    /// How many were received at all.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Requests sent in a second.
    #[must_use]
    pub fn sent_per_second(&self) -> f64 {
        precise(self.received() + self.without_response) / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The time within which this percentage of the responses with this status came; without the lead-in.
    #[must_use]
    pub fn percentile(&self, status: u16, percent: u8) -> Duration {
        self.times.get(&status).map_or(Duration::ZERO, |times| times.percentile(percent))
    }
}

/// Sends it all, and reads all responses. Blocks.
///
/// # Errors
/// When the server cannot be reached.
pub fn run(load: &Load<'_>) -> io::Result<Responses> {
    let mut generator = Generator::open(load)?;
    generator.run()?;
    let Generator { mut responses, started, connections, .. } = generator;
    responses.took = started.elapsed();
    responses.without_response +=
        connections.iter().filter(|connection| connection.due.is_some()).count() as u64;
    Ok(responses)
}

/// One connection.
struct Connection {
    stream: TcpStream,
    /// Of the request under way.
    due: Option<Instant>,
    /// Which request that is, and how much of it is written.
    request: usize,
    written: usize,
    /// What was read of its response.
    read: Vec<u8>,
}

/// All connections, and what they have done.
struct Generator<'a> {
    load: &'a Load<'a>,
    poll: Poll,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    started: Instant,
    /// Times are kept of what is due from then on.
    timed_from: Instant,
    /// Requests whose turn has come.
    next: u64,
    /// Requests that are dealt with.
    done: u64,
    responses: Responses,
}

impl<'a> Generator<'a> {
    fn open(load: &'a Load<'a>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let connections = (0..load.connections).map(|at| Connection::open(load.address, &poll, at));
        let connections = connections.collect::<io::Result<Vec<Connection>>>()?;
        thread::sleep(ACCEPTED);
        let idle = (0..connections.len()).collect();
        let started = Instant::now();
        let lead_in = if let Pace::Open { lead_in, .. } = load.pace { lead_in } else { Duration::ZERO };
        let (timed_from, responses) = (started + lead_in, Responses::default());
        Ok(Self { load, poll, connections, idle, started, timed_from, next: 0, done: 0, responses })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while self.done < self.load.count && self.started.elapsed() < self.load.limit {
            self.send_due()?;
            let wait = self.until_due().min(self.load.limit);
            // Whole milliseconds, rounded down: the queue would round up.
            let whole = Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            match self.poll.poll(&mut events, Some(whole)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            if events.is_empty() && whole.is_zero() {
                thread::sleep(wait.min(NAP));
            }
            for event in &events {
                self.advance(event.token().0)?;
            }
        }
        Ok(())
    }

    /// When request `n` is to be sent.
    fn due(&self, n: u64, now: Instant) -> Instant {
        match self.load.pace {
            Pace::Closed => now,
            Pace::Open { per_second, .. } => self.started + Duration::from_secs_f64(precise(n) / per_second),
        }
    }

    fn send_due(&mut self) -> io::Result<()> {
        while self.next < self.load.count {
            let now = Instant::now();
            let due = self.due(self.next, now);
            if due > now {
                return Ok(());
            }
            let Some(at) = self.idle.pop() else {
                let Pace::Open { max_delay, .. } = self.load.pace else { return Ok(()) };
                if now.duration_since(due) < max_delay {
                    return Ok(());
                }
                (self.next, self.done) = (self.next + 1, self.done + 1);
                self.responses.unsent += 1;
                continue;
            };
            let turn = (self.load.first + self.next) % (self.load.requests.len() as u64);
            self.next += 1;
            let connection = &mut self.connections[at];
            (connection.due, connection.request, connection.written) =
                (Some(due), usize::try_from(turn).unwrap_or(0), 0);
            self.advance(at)?;
        }
        Ok(())
    }

    /// How long until there is something to send.
    fn until_due(&self) -> Duration {
        if self.next >= self.load.count || self.idle.is_empty() {
            return IDLE;
        }
        let now = Instant::now();
        self.due(self.next, now).saturating_duration_since(now)
    }

    /// Writes what is to be written, reads what is there.
    fn advance(&mut self, at: usize) -> io::Result<()> {
        let connection = &mut self.connections[at];
        match connection.advance(self.load.requests) {
            Ok(None) => {}
            Ok(Some(status)) => {
                if let Some(due) = connection.due.take() {
                    *self.responses.counts.entry(status).or_default() += 1;
                    if due >= self.timed_from {
                        self.responses.times.entry(status).or_default().record(due.elapsed());
                    }
                    self.done += 1;
                    self.idle.push(at);
                }
            }
            Err(_) => self.reopen(at)?,
        }
        Ok(())
    }

    /// A connection broke: whatever was under way on it has no response.
    fn reopen(&mut self, at: usize) -> io::Result<()> {
        let was_busy = self.connections[at].due.is_some();
        self.connections[at] = Connection::open(self.load.address, &self.poll, at)?;
        if was_busy {
            self.responses.without_response += 1;
            self.done += 1;
            self.idle.push(at);
        }
        Ok(())
    }
}

impl Connection {
    fn open(address: SocketAddr, poll: &Poll, at: usize) -> io::Result<Self> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(at), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, due: None, request: 0, written: 0, read: Vec::with_capacity(1_024) })
    }

    /// The status, once the response is complete.
    fn advance(&mut self, requests: &[Box<[u8]>]) -> io::Result<Option<u16>> {
        if self.due.is_some() {
            let request = &requests[self.request];
            while self.written < request.len() {
                match self.stream.write(&request[self.written..]) {
                    Ok(written) => self.written += written,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
        }
        let mut some = [0_u8; 4_096];
        loop {
            match self.stream.read(&mut some) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.read.extend_from_slice(&some[..read]);
                    // A short read has emptied the socket: send again would cost a call for nothing.
                    if read < some.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let Some(status) = complete(&self.read)? else { return Ok(None) };
        self.read.clear();
        Ok(Some(status))
    }
}

/// The status of a response, if all of it is there. Only responses that state their length are understood, which all of
/// ours do.
fn complete(read: &[u8]) -> io::Result<Option<u16>> {
    let Some(head) = read.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&read[..head]).map_err(|_| ErrorKind::InvalidData)?;
    let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    let length = text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.ok_or(ErrorKind::InvalidData)?;
    Ok((read.len() >= head + 4 + length).then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";

    /// Responds to the n-th request with `response(n)`; `None` closes the connection.
    fn server(response: fn(usize) -> Option<&'static [u8]>, pause: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                thread::spawn(move || {
                    let mut some = [0_u8; 1_024];
                    let mut n = 0;
                    while stream.read(&mut some).is_ok_and(|read| read > 0) {
                        let Some(response) = response(n) else { return };
                        thread::sleep(pause);
                        if stream.write_all(response).is_err() {
                            return;
                        }
                        n += 1;
                    }
                });
            }
        });
        address
    }

    fn load(address: SocketAddr, pace: Pace, count: u64, requests: &[Box<[u8]>]) -> Responses {
        let limit = Duration::from_secs(60);
        run(&Load { address, connections: 2, pace, requests, first: 0, count, limit }).expect("a server")
    }

    fn open(per_second: f64, max_delay: Duration) -> Pace {
        Pace::Open { per_second, max_delay, lead_in: Duration::ZERO }
    }

    fn requests() -> Vec<Box<[u8]>> {
        vec![Box::from(*b"GET / HTTP/1.1\r\n\r\n")]
    }

    #[test]
    fn every_request_has_a_response_that_is_counted_by_its_status() {
        let address = server(|n| Some(if n.is_multiple_of(2) { OK } else { BUSY }), Duration::ZERO);
        let responses = load(address, Pace::Closed, 100, &requests());
        assert_eq!((responses.received(), responses.without_response, responses.unsent), (100, 0, 0));
        assert!(responses.count(200) >= 50 && responses.count(503) > 0, "{responses:?}");
        let pace = open(10_000.0, Duration::from_secs(60));
        assert_eq!(load(address, pace, 100, &requests()).received(), 100);
    }

    #[test]
    fn a_server_that_stands_still_is_charged_with_all_that_should_have_been_sent() {
        // Two connections, 20 ms a response, one due each millisecond: the last waits for all before it.
        let address = server(|_| Some(OK), Duration::from_millis(20));
        let pace = open(1_000.0, Duration::from_secs(60));
        let responses = load(address, pace, 40, &requests());
        let slowest = responses.percentile(200, 100);
        assert!(slowest >= Duration::from_millis(20 * 20 - 40), "{slowest:?}");
    }

    #[test]
    fn a_lead_in_is_counted_but_not_timed() {
        let address = server(|_| Some(OK), Duration::from_millis(1));
        let (max_delay, lead_in) = (Duration::from_secs(60), Duration::from_millis(95));
        let pace = Pace::Open { per_second: 100.0, max_delay, lead_in };
        let responses = load(address, pace, 15, &requests());
        assert_eq!((responses.count(200), responses.received()), (15, 15));
        assert_eq!(responses.times[&200].len(), 5, "the first ten were due within 95 ms");
    }

    #[test]
    fn a_request_without_a_connection_is_not_sent_and_a_broken_one_has_no_response() {
        let address = server(|_| Some(OK), Duration::from_millis(50));
        let pace = open(10_000.0, Duration::ZERO);
        let responses = load(address, pace, 50, &requests());
        assert_eq!(responses.received() + responses.unsent, 50);
        assert!(responses.unsent > 0);
        let address = server(|n| (n == 0).then_some(OK), Duration::ZERO);
        let responses = load(address, Pace::Closed, 20, &requests());
        assert_eq!(responses.received() + responses.without_response, 20);
        assert!(responses.without_response >= 5, "{responses:?}");
    }

    #[test]
    fn a_response_is_complete_when_its_whole_length_has_arrived() {
        assert_eq!(complete(OK).ok(), Some(Some(200)));
        for short in 0..OK.len() {
            assert_eq!(complete(&OK[..short]).ok(), Some(None));
        }
        assert!(complete(b"HTTP/1.1 200 OK\r\n\r\n").is_err() && complete(b"nonsense\r\n\r\n").is_err());
    }
}
