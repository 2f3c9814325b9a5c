//! Serving until shutdown, and the order in which an instance stops: it says that it is not ready, takes no new
//! connection, answers those who wait that they should come back, lets requests under way end, and leaves only when
//! Kafka has acknowledged what was sent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::{Listener, ListenerExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::app::App;
use crate::router::router;

/// How long records that were sent may take to be acknowledged at the end.
const FLUSH: Duration = Duration::from_secs(10);

/// Serves until the instance's token is cancelled.
///
/// # Errors
/// Whatever the listener reports.
pub async fn serve(listener: TcpListener, app: Arc<App>) -> io::Result<()> {
    let listener = listening(listener)?;
    let stopping = app.stopping.clone();
    let served = axum::serve(listener, router(Arc::clone(&app)))
        .with_graceful_shutdown(stopping.clone().cancelled_owned());
    let drained = async {
        stopping.cancelled().await;
        app.leave();
        tokio::time::sleep(app.config.drain()).await;
    };
    tokio::select! {
        served = served => served?,
        () = drained => tracing::warn!("some requests were still under way at the end"),
    }
    app.leave();
    let sink = Arc::clone(&app.sink);
    drop(tokio::task::spawn_blocking(move || sink.flush(FLUSH)).await);
    Ok(())
}

/// The same listener, whose connections send what they have at once.
///
/// # Errors
/// When it has no address.
pub(crate) fn listening(
    listener: TcpListener,
) -> io::Result<impl Listener<Io = TcpStream, Addr = SocketAddr>> {
    tracing::info!(address = %listener.local_addr()?, "requests are taken");
    Ok(listener.tap_io(|stream| {
        // An answer is one small packet: waiting for more to come with it would cost 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set");
        }
    }))
}
