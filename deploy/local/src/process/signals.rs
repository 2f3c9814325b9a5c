//! The signals that ask a launcher to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Waits until this process is asked to end; answers by which signal. From the first call on, these signals no longer
/// end the process by themselves.
///
/// # Errors
/// When the signals cannot be listened to.
pub async fn interrupted() -> io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hang_up.recv() => "SIGHUP",
    })
}
