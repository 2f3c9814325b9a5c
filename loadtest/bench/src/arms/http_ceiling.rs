//! `http-ceiling`: what the HTTP server sustains without anything behind it.
//!
//! The program is `ingest-api` itself (`ingest-api ceiling`): the same server, layers, token check and body parsing, with an
//! immediate response of the same size as that of an accepted claim. It ends when its standard input is closed.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tokio::process::Command;

use crate::BenchError;
use crate::arm::Sample;
use crate::frames::http::{CONNECTIONS, HttpArm, claims, only, sample};
use crate::host::cpu;
use crate::host::environment::Environment;
use crate::load::http_load::{Load, Pace, run};
use crate::load::worker_run::blocking;

const UP_WITHIN: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The arm.
pub const HTTP_CEILING: HttpArm = HttpArm {
    name: "http-ceiling",
    about: "the same server, token check and JSON, 256 connections, immediate responses; nothing is stored",
    share: 5,
    measure: |env, requests| measure(env, requests).boxed_local(),
};

async fn measure(env: &mut Environment, requests: u64) -> Result<Sample, BenchError> {
    let secret = env.stack.jwt_secret().to_owned();
    let program = env.stack.programs().ok_or(BenchError::Lost)?.ingest_api;
    // Bound and released: free, unless another process binds it in between.
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
    env.quiesce().await?;
    let look = move || vec![("api", cpu::of_tree(pid)), ("caller", cpu::of_this_process())];
    let before = look();
    let send = move || {
        let (connections, pace) = (CONNECTIONS, Pace::Closed);
        let (requests, count, first) = (&users, requests, 0);
        Ok(run(&Load { address, connections, pace, requests, first, count, limit: LIMIT })?)
    };
    let responses = blocking(send).await?;
    let cpu = crate::host::environment::used(&before, &look());
    drop(server.stdin.take());
    server.wait().await?;
    only(&responses, &[202])?;
    Ok(sample(&responses, 202, cpu))
}

async fn up(address: SocketAddr) -> Result<(), BenchError> {
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        if started.elapsed() > UP_WITHIN {
            return Err(BenchError::Stuck {
                what: "the server for http-ceiling did not come up",
                after: UP_WITHIN,
            });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}
