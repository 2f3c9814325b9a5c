//! `http-ceiling`: what this front door can take with nothing behind it.
//!
//! The program is `ingest-api` itself (`ingest-api ceiling`): the same server, layers, check of the token and reading
//! of the body, answered at once with as many bytes as an accepted claim is answered with. It ends with its input.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::process::Command;

use super::arm::Sample;
use super::drain::blocking;
use super::front::{CONNECTIONS, Front, claims, only, sample};
use super::ground::Ground;
use super::http_load::{Load, Pace, run};
use super::{BenchError, cpu};

const UP_WITHIN: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(120);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The arm.
pub const HTTP_CEILING: Front = Front {
    name: "http-ceiling",
    about: "the same server, token check and JSON, 256 connections, answering at once; nothing is kept anywhere",
    share: 5,
    measure: |ground, requests| measure(ground, requests).boxed_local(),
};

async fn measure(ground: &mut Ground, requests: u64) -> Result<Sample, BenchError> {
    let secret = ground.stack.jwt_secret().to_owned();
    let program = ground.stack.programs().ok_or(BenchError::Lost)?.ingest_api;
    // Taken and given back: free, unless somebody is very quick.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut server = Command::new(program)
        .args(["ceiling", "--listen", &address.to_string()])
        .env("STAMPEDE_JWT_SECRET", &secret)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let pid = server.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(-1);
    up(address).await?;
    let users = claims(&secret, "spring-2026", false, requests)?;
    ground.calm().await?;
    let look = move || vec![("api", cpu::of_tree(pid)), ("caller", cpu::of_this_process())];
    let before = look();
    let asking = move || {
        let (connections, pace) = (CONNECTIONS, Pace::Closed);
        let (requests, count, first) = (&users, requests, 0);
        Ok(run(&Load { address, connections, pace, requests, first, count, limit: LIMIT })?)
    };
    let answers = blocking(asking).await?;
    let cpu = super::ground::used(&before, &look());
    drop(server.stdin.take());
    server.wait().await?;
    only(&answers, &[202])?;
    Ok(sample(&answers, 202, cpu))
}

async fn up(address: SocketAddr) -> Result<(), BenchError> {
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        if begun.elapsed() > UP_WITHIN {
            return Err(BenchError::Stuck {
                what: "the server for http-ceiling did not come up",
                after: UP_WITHIN,
            });
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    Ok(())
}
