//! The cheapest honest HTTP client: one keep-alive connection for each caller, opened when it is needed and opened
//! again after it broke. There is no pool, so nothing is shared or locked between callers.
//!
//! A request without a response may have been accepted: [`Lost`] never means that nothing happened.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// A connection to one server.
pub struct Connection {
    /// `host:port`.
    authority: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// Bearer token.
    pub token: &'a str,
    /// Idempotency-Key.
    pub key: Option<&'a str>,
    /// JSON.
    pub body: Option<Bytes>,
}

/// A response, whatever its status.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The server's `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The whole body.
    pub body: Bytes,
}

/// No response arrived. The server may have accepted the request.
#[derive(Debug, Error)]
pub enum Lost {
    /// No connection.
    #[error("no connection: {0}")]
    NotConnected(#[from] io::Error),
    /// The connection ended before the response was complete.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// Nothing came in time.
    #[error("no response within {} s", .0.as_secs())]
    Late(Duration),
    /// The request cannot be written as HTTP.
    #[error("not a request: {0}")]
    Unwritable(#[from] hyper::http::Error),
}

impl Connection {
    /// To the server behind `base` (`http://host:port`). Nothing is opened yet.
    #[must_use]
    pub fn to(base: &str) -> Self {
        let authority = base.strip_prefix("http://").unwrap_or(base).trim_end_matches('/').to_owned();
        Self { authority, sender: None }
    }

    /// Sends a request and reads the whole response.
    ///
    /// # Errors
    /// [`Lost`] when there is none within `limit`; the next request opens a new connection.
    pub async fn send(&mut self, call: &Call<'_>, limit: Duration) -> Result<Reply, Lost> {
        // Taken out, and put back only when the response is complete: a connection in any other state is closed,
        // also when the caller stops waiting half-way.
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        let request = self.request(call)?;
        let reply = timeout(limit, async {
            sender.ready().await?;
            read(sender.send_request(request).await?).await
        });
        let reply = reply.await.map_err(|_| Lost::Late(limit))??;
        self.sender = Some(sender);
        Ok(reply)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Lost> {
        let stream = timeout(CONNECT_WITHIN, TcpStream::connect(&self.authority));
        let stream = stream.await.map_err(|_| Lost::Late(CONNECT_WITHIN))??;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when the sender is dropped; errors are reported to the sender.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, Lost> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(call.path)
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, format!("Bearer {}", call.token));
        if let Some(key) = call.key {
            request = request.header("idempotency-key", key);
        }
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(request.body(Full::new(call.body.clone().unwrap_or_default()))?)
    }
}

async fn read(response: Response<Incoming>) -> Result<Reply, Lost> {
    let status = response.status();
    let seconds =
        response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Reply { status, retry_after: seconds.map(Duration::from_secs), body })
}

impl Reply {
    /// Whether the same request may succeed later: overload, an outage behind the API, too many requests.
    #[must_use]
    pub fn may_be_repeated(&self) -> bool {
        self.status.is_server_error()
            || self.status == StatusCode::TOO_MANY_REQUESTS
            || self.status == StatusCode::REQUEST_TIMEOUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const CALL: Call<'static> =
        Call { method: Method::GET, path: "/", token: "t", key: Some("k"), body: None };
    const SECOND: Duration = Duration::from_secs(1);

    /// Responds to one request on each connection, then closes it.
    async fn one_response_each() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut read = [0_u8; 1024];
                let _length = stream.read(&mut read).await;
                let response = b"HTTP/1.1 503 Busy\r\nretry-after: 3\r\ncontent-length: 2\r\n\r\nno";
                stream.write_all(response).await.expect("the caller reads");
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_is_opened_again_for_the_next_request() {
        let mut connection = Connection::to(&one_response_each().await);
        let mut received = 0;
        for _ in 0..6 {
            // The close may be seen before or after the next request has gone out: lost once, never twice.
            if let Ok(reply) = connection.send(&CALL, SECOND).await {
                assert_eq!((reply.status.as_u16(), reply.retry_after), (503, Some(SECOND * 3)));
                assert!(reply.may_be_repeated());
                received += 1;
            }
        }
        assert!(received >= 3, "{received}");
    }

    #[tokio::test]
    async fn a_refused_and_a_silent_server_are_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let silent = Connection::to(&base).send(&CALL, Duration::from_millis(50)).await;
        assert!(matches!(silent, Err(Lost::Late(_))), "{silent:?}");
        drop(listener);
        let refused = Connection::to(&base).send(&CALL, SECOND).await;
        assert!(matches!(refused, Err(Lost::NotConnected(_))), "{refused:?}");
    }
}
