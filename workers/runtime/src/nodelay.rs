//! Switches Nagle's algorithm off on connections to Postgres.
//!
//! sqlx 0.9.0 lost that (its issue 4335; mended there, but not released): a call of more than some 16 KB goes out in
//! two pieces, the second waits for the acknowledgement of the first, and the server delays that by 40 ms. Batches
//! of 200 claims took 44 ms instead of 4.
//!
//! sqlx gives no access to its sockets, so the process asks the kernel for second handles to its own, by number
//! (`pidfd_getfd`), and sets the option through those. Where the kernel refuses (before Linux 5.6, or a strict
//! sandbox) things are as slow as without. Drop this module with the next release of sqlx.

use std::fs::{read_dir, read_link};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Once;

use rustix::net::{getpeername, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

static TOLD: Once = Once::new();

/// Sets `TCP_NODELAY` on every socket of this process whose other end has this port.
pub(crate) async fn set(port: u16) {
    // A program with tens of thousands of clients has as many descriptors to look at.
    let looked = tokio::task::spawn_blocking(move || set_now(port)).await;
    if let Err(error) = looked.unwrap_or_else(|error| Err(io::Error::other(error))) {
        TOLD.call_once(
            || tracing::warn!(%error, "TCP_NODELAY cannot be set: calls to Postgres may take 40 ms more"),
        );
    }
}

fn set_now(port: u16) -> io::Result<()> {
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    for entry in read_dir("/proc/self/fd")? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Descriptors come and go meanwhile: what cannot be read is gone.
        let is_socket =
            read_link(entry.path()).is_ok_and(|to| to.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        if !is_socket {
            continue;
        }
        match pidfd_getfd(&this, number, PidfdGetfdFlags::empty()) {
            // It fails only on a socket that was cut meanwhile.
            Ok(socket) if peer_port(&socket) == Some(port) => {
                let _ = sockopt::set_tcp_nodelay(&socket, true);
            }
            Ok(_) | Err(rustix::io::Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The port at the other end; none for a socket that has none, or is no TCP.
fn peer_port(socket: &OwnedFd) -> Option<u16> {
    let peer = getpeername(socket).ok().flatten()?;
    let is_tcp = sockopt::socket_type(socket).ok()? == rustix::net::SocketType::STREAM;
    SocketAddr::try_from(peer).ok().filter(|_| is_tcp).map(|peer| peer.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_to_that_port_no_longer_wait_and_others_stay_as_they_are() -> io::Result<()> {
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
