//! The program `ingest-api`.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use ingest_api::app::{self, App};
use ingest_api::config::{CeilingArgs, Cli, Command, Config, TokenArgs};
use ingest_api::server::{self, ceiling};
use runtime::{lifecycle, probes, telemetry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::read().command {
        Command::Serve(config) => serve(*config).await,
        Command::Token(args) => print_token(&args),
        Command::Ceiling(args) => serve_ceiling(args).await,
    };
    result.map_or_else(
        |error| {
            eprintln!("ingest-api: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

async fn serve(config: Config) -> Result<(), Box<dyn Error>> {
    let metrics = telemetry::init(&config.telemetry)?;
    tracing::info!(?config, "starting");
    let (stopping, readiness) = (lifecycle::shutdown_on_signal(), app::readiness());
    // The probes outlive the server: a stopping instance must still report that it is not ready.
    let ended = CancellationToken::new();
    let probe_listener = TcpListener::bind(config.probe_listen).await?;
    let probes = tokio::spawn(probes::serve(probe_listener, metrics, Arc::clone(&readiness), ended.clone()));
    let listen = config.listen;
    let app = App::start(config, readiness, stopping).await?;
    let served = server::serve(TcpListener::bind(listen).await?, app).await;
    ended.cancel();
    probes.await??;
    Ok(served?)
}

async fn serve_ceiling(args: CeilingArgs) -> Result<(), Box<dyn Error>> {
    let _metrics = telemetry::init(&args.telemetry)?;
    let stop = ceiling::until_input_ends()?;
    Ok(ceiling::serve(TcpListener::bind(args.listen).await?, args.jwt.tokens()?, stop).await?)
}

fn print_token(args: &TokenArgs) -> Result<(), Box<dyn Error>> {
    println!("{}", args.issue()?);
    Ok(())
}
