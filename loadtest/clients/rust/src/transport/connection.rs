//! One keep-alive connection, opened when it is needed and again after it was lost.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{HttpRequest, HttpResponse, TransportError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to one server, for one request at a time.
#[derive(Debug)]
pub(super) struct Connection {
    /// `host:port`.
    authority: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// To the server at `base_url` (`http://host:port`). Nothing is opened yet.
    #[must_use]
    pub(super) fn new(base_url: &str) -> Self {
        let authority = base_url.strip_prefix("http://").unwrap_or(base_url).trim_end_matches('/').to_owned();
        Self { authority, sender: None }
    }

    /// Sends a request and reads the whole response.
    ///
    /// # Errors
    /// [`TransportError`] without a complete response within `limit`; the next request opens a new connection.
    pub(super) async fn send(
        &mut self,
        request: &HttpRequest<'_>,
        limit: Duration,
    ) -> Result<HttpResponse, TransportError> {
        // Taken out, and put back only when the response is complete: a connection in any other state is unusable,
        // also when the caller drops this future half-way.
        let mut sender = match self.sender.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect(limit.min(CONNECT_TIMEOUT)).await?,
        };
        let request = self.encode(request)?;
        let exchange = timeout(limit, async {
            if sender.ready().await.is_err() {
                return Err(TransportError::NotSent);
            }
            let sent = sender.try_send_request(request).await;
            // A request that comes back with the error was never written.
            let response = sent.map_err(|mut error| match error.take_message() {
                Some(_) => TransportError::NotSent,
                None => TransportError::ConnectionLost(error.into_error()),
            })?;
            read(response).await
        });
        let response = exchange.await.map_err(|_| TransportError::Timeout(limit))??;
        self.sender = Some(sender);
        Ok(response)
    }

    async fn connect(&self, limit: Duration) -> Result<SendRequest<Full<Bytes>>, TransportError> {
        if self.authority.contains('/') {
            return Err(TransportError::InvalidBaseUrl(self.authority.clone()));
        }
        let stream = timeout(limit, TcpStream::connect(&self.authority)).await;
        let stream = stream.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_| TransportError::NotSent)?;
        // Ends when the sender is dropped; the sender reports its errors.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn encode(&self, request: &HttpRequest<'_>) -> Result<Request<Full<Bytes>>, TransportError> {
        let HttpRequest { method, path, token, idempotency_key, headers, body } = request;
        let mut encoded =
            Request::builder().method(method).uri(&**path).header(header::HOST, &self.authority);
        if let Some(token) = token {
            encoded = encoded.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(key) = idempotency_key {
            encoded = encoded.header("idempotency-key", *key);
        }
        if body.is_some() {
            encoded = encoded.header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let mut encoded = encoded.body(Full::new(body.clone().unwrap_or_default()))?;
        encoded.headers_mut().extend(headers.clone());
        Ok(encoded)
    }
}

async fn read(response: Response<Incoming>) -> Result<HttpResponse, TransportError> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(HttpResponse { status: head.status, headers: head.headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const SECOND: Duration = Duration::from_secs(1);

    /// Sends one response on each connection, then closes it.
    async fn closes_after_each_response() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut read = [0_u8; 1024];
                let _length = stream.read(&mut read).await;
                let response = b"HTTP/1.1 503 Busy\r\nretry-after: 3\r\ncontent-length: 2\r\n\r\nno";
                stream.write_all(response).await.expect("the client reads");
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_is_opened_again_for_the_next_request() {
        let mut connection = Connection::new(&closes_after_each_response().await);
        let mut responses = 0;
        for _ in 0..6 {
            // The close may arrive before or after the next request was written: one request is lost, never two.
            if let Ok(response) = connection.send(&HttpRequest::get("/"), SECOND).await {
                assert_eq!((response.status.as_u16(), response.retry_after()), (503, Some(SECOND * 3)));
                responses += 1;
            }
        }
        assert!(responses >= 3, "{responses}");
    }

    #[tokio::test]
    async fn a_refused_connection_is_distinguished_from_a_missing_response() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base_url = format!("http://{}", listener.local_addr().expect("an address"));
        let send = async |limit| Connection::new(&base_url).send(&HttpRequest::get("/"), limit).await;
        let silent = send(Duration::from_millis(50)).await;
        assert!(matches!(silent, Err(TransportError::Timeout(_))), "{silent:?}");
        drop(listener);
        let refused = send(SECOND).await;
        assert!(matches!(refused, Err(TransportError::NotConnected(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn a_base_url_with_tls_is_reported_as_such() {
        let secure = Connection::new("https://api.example").send(&HttpRequest::get("/"), SECOND).await;
        assert!(matches!(secure, Err(TransportError::InvalidBaseUrl(_))), "{secure:?}");
    }

    #[tokio::test]
    async fn a_token_that_is_no_header_value_is_never_sent() {
        let request = HttpRequest::get("/").token("line\nbreak");
        let base_url = closes_after_each_response().await;
        let invalid = Connection::new(&base_url).send(&request, SECOND).await;
        assert!(matches!(invalid, Err(TransportError::InvalidRequest(_))), "{invalid:?}");
    }
}
