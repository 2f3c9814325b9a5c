//! The tutorial, executed as a reader would: with `bash` and `curl`, in one shell from top to bottom.

use std::fs::{self, File};
use std::process::Stdio;

use repository_checks::examples::{Example, ExampleResult, examples, results, script};
use repository_checks::files::repository_root;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use e2e::Environment;
use e2e::wait::TIMEOUT;

const TUTORIAL: &str = "deploy/docs/tutorial.md";

async fn every_command_of_the_tutorial_prints_what_the_tutorial_shows(env: &Environment) {
    let examples = examples(&fs::read_to_string(repository_root().join(TUTORIAL)).unwrap()).unwrap();
    assert!(examples.len() > 15, "only {} blocks of commands were found", examples.len());
    let (printed, errors) = run(env, &examples).await;
    for (n, example) in examples.iter().enumerate() {
        let ended = printed.get(n);
        let problem = match ended.map(|result| example.check(result)) {
            None => "the commands did not end".to_owned(),
            Some(Err(problem)) => problem,
            Some(Ok(())) => continue,
        };
        let stdout = ended.map_or("", |result| &result.stdout);
        panic!("{}{errors}", example.report(TUTORIAL, &problem, stdout));
    }
}

/// Runs the examples with the variables that `deploy/run` prints. Returns the results of those that ended, and what was
/// printed to standard error.
async fn run(env: &Environment, examples: &[Example]) -> (Vec<ExampleResult>, String) {
    let directory = TempDir::new().unwrap();
    let file = |name| directory.path().join(name);
    let output = |name| Stdio::from(File::create(file(name)).unwrap());
    let header = |sub, role| format!("Authorization: Bearer {}", env.tokens.issue(sub, role).unwrap());
    let mut bash = Command::new("bash");
    bash.arg("-c").arg(script(examples)).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    bash.env("API", &env.stack.endpoints().apis[0]).env("JSON", "Content-Type: application/json");
    bash.env("ADMIN", header("admin", "admin"));
    bash.env("ANN", header("ann", "user"));
    bash.env("SHOP", header("shop", "service"));
    bash.stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr")).kill_on_drop(true);
    let mut shell = bash.spawn().unwrap();
    // After a timeout, what was printed shows which commands did not end.
    timeout(TIMEOUT, shell.wait()).await.ok();
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| fs::read_to_string(file(name)).unwrap());
    let errors =
        if stderr.is_empty() { stderr } else { format!("\n--- standard error of all commands\n{stderr}") };
    (results(&stdout), errors)
}

e2e::tests![every_command_of_the_tutorial_prints_what_the_tutorial_shows];
