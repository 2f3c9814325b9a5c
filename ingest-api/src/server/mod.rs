//! The HTTP server, from start to shutdown.
//!
//! Order of a shutdown: readiness fails; no new connection is accepted; clients that wait for an outcome get their 202;
//! running requests end, within the drain time; the process ends only when Kafka has acknowledged what was sent.

pub mod ceiling;

mod middleware;
mod router;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::{Listener, ListenerExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::app::App;

/// How long sent records may take to be acknowledged during shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until the instance's shutdown token is cancelled.
///
/// # Errors
/// Those of the listener.
pub async fn serve(listener: TcpListener, app: Arc<App>) -> io::Result<()> {
    let listener = with_nodelay(listener)?;
    let stopping = app.requests.stopping.clone();
    let served = axum::serve(listener, router::router(Arc::clone(&app)))
        .with_graceful_shutdown(stopping.clone().cancelled_owned());
    let drained = async {
        stopping.cancelled().await;
        app.stop_serving();
        tokio::time::sleep(app.config.drain()).await;
    };
    tokio::select! {
        served = served => served?,
        () = drained => tracing::warn!("drain time is over; running requests are dropped"),
    }
    app.stop_serving();
    let producer = Arc::clone(&app.requests.producer);
    drop(tokio::task::spawn_blocking(move || producer.flush(FLUSH_TIMEOUT)).await);
    Ok(())
}

/// The listener with TCP_NODELAY on its connections.
fn with_nodelay(listener: TcpListener) -> io::Result<impl Listener<Io = TcpStream, Addr = SocketAddr>> {
    tracing::info!(address = %listener.local_addr()?, "listening");
    Ok(listener.tap_io(|stream| {
        // A response is one small packet: waiting to send more with it would cost 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
    }))
}
