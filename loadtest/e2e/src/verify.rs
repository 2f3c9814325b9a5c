//! The checker as a program: `loadtest verify`.

use std::process::Stdio;

use local_stack::{Profile, cargo_build, testing};
use serde_json::Value;
use tokio::process::Command;

/// The result of a run.
pub struct VerifyResult {
    /// The exit code.
    pub code: i32,
    /// The last line of standard output.
    pub json: Value,
    /// Standard error: the table.
    pub table: String,
}

impl VerifyResult {
    /// Why the first unchecked part was not checked.
    pub fn unchecked(&self) -> &str {
        self.json["unchecked"][0].as_str().unwrap_or_default()
    }
}

/// Runs `loadtest verify --json` with these arguments.
pub async fn verify(args: &[&str]) -> VerifyResult {
    let built = cargo_build(&["loadtest"], testing::FEATURES, Profile::Dev).await.unwrap();
    let mut command = Command::new(&built[0]);
    command.arg("verify").args(args).arg("--json").stdin(Stdio::null());
    // Independent of the environment of the tests.
    for variable in
        ["STAMPEDE_POSTGRES_URL", "STAMPEDE_KAFKA_BROKERS", "STAMPEDE_REDIS_URL", "STAMPEDE_GROUP"]
    {
        command.env_remove(variable);
    }
    let output = command.output().await.unwrap();
    let (out, table) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let last = out.lines().last().unwrap_or_else(|| panic!("no output\n{table}"));
    let json = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"));
    VerifyResult { code: output.status.code().unwrap(), json, table }
}
