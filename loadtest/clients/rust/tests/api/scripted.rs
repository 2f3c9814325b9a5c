//! A server that sends scripted responses, one after another, and records every request. It speaks HTTP over a plain
//! TCP listener, so that a script can also break connections in the middle of a response.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// An id with the suffix that the API adds.
pub(crate) const ID: &str = "00000000-0000-4000-8000-000000000001.s";

/// What happens to one request.
#[derive(Clone, Debug)]
pub(crate) enum Reaction {
    /// A whole response: status, headers, body.
    Respond(u16, &'static str, String),
    /// The connection is closed without a response.
    Close,
    /// The connection is closed in the middle of the response.
    CloseHalfWay,
    /// Nothing is sent, and the connection stays open.
    Silence,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Method and target.
    pub(crate) line: String,
    head: String,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }

    pub(crate) fn key(&self) -> Option<String> {
        self.header("idempotency-key")
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Plays the script; its last reaction repeats for ever.
    pub(crate) async fn play(script: impl IntoIterator<Item = Reaction>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let recorded = Arc::clone(&received);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&recorded)));
            }
        });
        Self { url, received, connections }
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Method and target of each request.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.received().into_iter().map(|request| request.line).collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Arc<Mutex<VecDeque<Reaction>>>,
    received: Arc<Mutex<Vec<Received>>>,
) {
    while let Some(request) = read(&mut stream).await {
        received.lock().unwrap().push(request);
        let reaction = {
            let mut script = script.lock().unwrap();
            if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
        };
        match reaction.unwrap() {
            Reaction::Respond(status, headers, body) => {
                let length = body.len();
                let text = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}");
                stream.write_all(text.as_bytes()).await.unwrap();
            }
            Reaction::Close => return,
            Reaction::CloseHalfWay => {
                stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{\"re").await.unwrap();
                return;
            }
            Reaction::Silence => std::future::pending().await,
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
            let mut request = Received { line, head, body: String::new() };
            let length: usize = request.header("content-length").map_or(0, |text| text.parse().unwrap());
            let mut body = bytes[end + 4..].to_vec();
            while body.len() < length {
                stream.read_buf(&mut body).await.ok().filter(|read| *read > 0)?;
            }
            request.body = String::from_utf8(body).unwrap();
            return Some(request);
        }
        stream.read_buf(&mut bytes).await.ok().filter(|read| *read > 0)?;
    }
}

pub(crate) fn respond(status: u16, body: Value) -> Reaction {
    Reaction::Respond(status, "", body.to_string())
}

pub(crate) fn problem(status: u16, code: &str) -> Reaction {
    respond(status, json!({"type": format!("urn:stampede:problem:{code}"), "code": code, "detail": "why"}))
}

/// 202.
pub(crate) fn pending() -> Reaction {
    respond(202, json!({"request_id": ID, "status": "pending", "links": {}}))
}

/// A poll that is too early.
pub(crate) fn still_pending() -> Reaction {
    respond(200, json!({"request_id": ID, "status": "pending", "kind": null, "reason": null}))
}

/// A granted claim.
pub(crate) fn granted() -> Reaction {
    let claim = json!({"coupon_id": "spring", "code": "C-1", "state": "CLAIMED", "claimed_at": "2026-01-01T00:00:00Z"});
    respond(
        200,
        json!({"request_id": ID, "kind": "claim", "coupon_id": "spring", "status": "accepted", "reason": null,
            "code": "C-1", "claim": claim, "redemption": null, "decided_at": "2026-01-01T00:00:00Z"}),
    )
}

/// A rejected claim.
pub(crate) fn rejected(reason: &str) -> Reaction {
    respond(
        200,
        json!({"request_id": ID, "kind": "claim", "coupon_id": "spring", "status": "rejected", "reason": reason,
            "code": null, "claim": null, "redemption": null, "decided_at": "2026-01-01T00:00:00Z"}),
    )
}
