//! `loadtest`: see `loadtest --help`.

use std::process::ExitCode;

use benchmark::{headline, memory};
use checker::verify;
use clap::{Parser, Subcommand};
use demo::{k6, sale};

/// Stampede under load, on the real stack.
#[derive(Parser)]
#[command(name = "loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Sale(demo::args::SaleArgs),
    Bench(benchmark::BenchArgs),
    Headline(headline::HeadlineArgs),
    Memory(memory::MemoryArgs),
    K6(k6::K6Args),
    Verify(verify::args::VerifyArgs),
    Fire(fire::args::FireArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Sale(args) => Box::pin(sale::run(args)).await.map_err(|error| error.to_string()),
        Command::Bench(args) => Box::pin(benchmark::run(args)).await.map_err(|error| error.to_string()),
        Command::Headline(args) => Box::pin(headline::run(args)).await.map_err(|error| error.to_string()),
        Command::Memory(args) => Box::pin(memory::run(args)).await.map_err(|error| error.to_string()),
        Command::K6(args) => Box::pin(k6::run(args)).await.map_err(|error| error.to_string()),
        Command::Verify(args) => Ok(Box::pin(verify::run(args)).await),
        Command::Fire(args) => Ok(Box::pin(fire::run(args)).await),
    };
    result.unwrap_or_else(|error| {
        eprintln!("loadtest: {error}");
        ExitCode::FAILURE
    })
}
