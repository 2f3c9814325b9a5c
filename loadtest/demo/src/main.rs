//! `demo`: see `demo --help`.

use std::process::ExitCode;

use checker::verify;
use clap::{Parser, Subcommand};
use demo::args::SaleArgs;
use demo::k6;

#[derive(Parser)]
#[command(name = "demo", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sale: SaleArgs,
}

#[derive(Subcommand)]
enum Command {
    /// The demonstration sale; also without a subcommand.
    Sale(SaleArgs),
    K6(k6::K6Args),
    Verify(verify::args::VerifyArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { command, sale } = Cli::parse();
    let result = match command.unwrap_or(Command::Sale(sale)) {
        Command::Sale(args) => Box::pin(demo::sale::run(args)).await.map_err(|error| error.to_string()),
        Command::K6(args) => Box::pin(k6::run(args)).await.map_err(|error| error.to_string()),
        Command::Verify(args) => Ok(Box::pin(verify::run(args)).await),
    };
    result.unwrap_or_else(|error| {
        eprintln!("demo: {error}");
        ExitCode::FAILURE
    })
}
