//! `workers`: see `workers --help`.

use std::process::ExitCode;

use runtime::telemetry;
use workers::config::{Cli, Command};
use workers::operator;
use workers::run::{migrate_only, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::from_args(std::env::args_os());
    let result = tokio::runtime::Runtime::new().map_err(|error| error.to_string()).and_then(|runtime| {
        let result = runtime.block_on(perform(cli.command));
        // A client that still waits for an unreachable broker must not keep the process alive.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn perform(command: Command) -> Result<(), String> {
    match command {
        Command::Run(args) => {
            let metrics = telemetry::init(&args.telemetry).map_err(|error| error.to_string())?;
            Box::pin(run(args, metrics)).await.map_err(|error| error.to_string())
        }
        Command::Migrate(args) => {
            telemetry::init(&args.telemetry).map_err(|error| error.to_string())?;
            migrate_only(args).await.map_err(|error| error.to_string())
        }
        Command::Partitions(args) => {
            Box::pin(operator::partitions(args)).await.map_err(|error| error.to_string())
        }
        Command::Repair(args) => Box::pin(operator::repair(args)).await.map_err(|error| error.to_string()),
        Command::Reject(args) => operator::reject(args).await.map_err(|error| error.to_string()),
        Command::DeadLetters(args) => operator::dead_letters(args).await.map_err(|error| error.to_string()),
    }
}
