//! `workers`: see `workers --help`.

use std::process::ExitCode;

use runtime::telemetry;
use workers::config::{Cli, Command};
use workers::run::{migrate_only, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::from_args(std::env::args_os());
    let done = match cli.command {
        Command::Run(args) => match telemetry::init(&args.telemetry) {
            Ok(handle) => Box::pin(run(args, handle)).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        },
        Command::Migrate(args) => match telemetry::init(&args.telemetry) {
            Ok(_) => migrate_only(args).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("workers: {why}");
            ExitCode::FAILURE
        }
    }
}
