//! Disables Nagle's algorithm on connections to Postgres.
//!
//! sqlx 0.9.0 no longer does (its issue 4335; fixed, not yet released): a call of more than about 16 KB is sent in two
//! segments, the second waits for the acknowledgement of the first, and the server delays that by 40 ms. Batches of 200
//! claims took 44 ms instead of 4.
//!
//! sqlx gives no access to its sockets. The process duplicates its own descriptors by number (`pidfd_getfd`) and sets
//! the option on the duplicates. Where the kernel denies this (before Linux 5.6, or in a strict sandbox), the delay
//! remains. Remove this module with the next release of sqlx.

use std::fs::{read_dir, read_link};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Once;

use rustix::net::{getpeername, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

static WARNED: Once = Once::new();

/// Sets `TCP_NODELAY` on every TCP socket of this process that is connected to this port.
pub(crate) async fn set(port: u16) {
    // Blocking: a program with tens of thousands of clients has as many descriptors to read.
    let done = tokio::task::spawn_blocking(move || set_now(port)).await;
    if let Err(error) = done.unwrap_or_else(|error| Err(io::Error::other(error))) {
        WARNED.call_once(
            || tracing::warn!(%error, "TCP_NODELAY cannot be set: calls to Postgres may take 40 ms longer"),
        );
    }
}

fn set_now(port: u16) -> io::Result<()> {
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    for entry in read_dir("/proc/self/fd")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Other threads open and close descriptors: one that cannot be read was closed.
        let is_socket =
            read_link(entry.path()).is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        if !is_socket {
            continue;
        }
        match pidfd_getfd(&this, number, PidfdGetfdFlags::empty()) {
            // Setting the option fails only on a socket that was closed in between.
            Ok(socket) if peer_port(&socket) == Some(port) => {
                let _ = sockopt::set_tcp_nodelay(&socket, true);
            }
            Ok(_) | Err(rustix::io::Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The remote port; `None` for a socket that is not connected or not TCP.
fn peer_port(socket: &OwnedFd) -> Option<u16> {
    let peer = getpeername(socket).ok().flatten()?;
    let is_tcp = sockopt::socket_type(socket).ok()? == rustix::net::SocketType::STREAM;
    SocketAddr::try_from(peer).ok().filter(|_| is_tcp).map(|peer| peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nodelay_is_set_on_sockets_to_that_port_and_on_no_others() -> io::Result<()> {
        let (one, other) = (
            tokio::net::TcpListener::bind("127.0.0.1:0").await?,
            tokio::net::TcpListener::bind("127.0.0.1:0").await?,
        );
        let to_one = tokio::net::TcpStream::connect(one.local_addr()?).await?;
        let to_other = tokio::net::TcpStream::connect(other.local_addr()?).await?;
        set(one.local_addr()?.port()).await;
        assert!(to_one.nodelay()?);
        assert!(!to_other.nodelay()?);
        Ok(())
    }
}
