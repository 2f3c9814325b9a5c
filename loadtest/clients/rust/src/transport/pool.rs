//! The connections to one server that are idle, for reuse by any caller.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Connection, HttpRequest, HttpResponse, TransportError};

/// One server, and idle connections to it.
#[derive(Debug)]
pub(crate) struct Server {
    base_url: String,
    max_idle: usize,
    idle: Mutex<Vec<Connection>>,
}

impl Server {
    pub(crate) fn new(base_url: String, max_idle: usize) -> Self {
        Self { base_url, max_idle, idle: Mutex::default() }
    }

    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Sends a request on an idle connection; on a new one if no connection is idle or `reuse` is false.
    ///
    /// A server may close an idle connection while a request is written to it; such a request counts as possibly
    /// delivered. A caller that cannot repeat its request therefore uses a new connection.
    pub(crate) async fn send(
        &self,
        request: &HttpRequest<'_>,
        limit: Duration,
        reuse: bool,
    ) -> Result<HttpResponse, TransportError> {
        loop {
            let idle = if reuse { self.take() } else { None };
            let is_reused = idle.is_some();
            let mut connection = idle.unwrap_or_else(|| Connection::new(&self.base_url));
            match connection.send(request, limit).await {
                // Each round consumes an idle connection, so this ends.
                Err(TransportError::NotSent) if is_reused => {}
                Err(error) => return Err(error),
                Ok(response) => {
                    self.put_back(connection);
                    return Ok(response);
                }
            }
        }
    }

    /// The connection that was used last, so that those beyond the need stay idle and the server closes them.
    fn take(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.max_idle {
            idle.push(connection);
        }
    }
}
