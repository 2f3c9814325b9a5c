//! Spawns children such that the kernel kills them when the launcher dies.
//!
//! The parent death signal is set by `setpriv`, because setting it here would need `unsafe`.

use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;

/// Another user to run a child as.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What to spawn, and how.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    /// Standard output and error are appended to this file.
    pub(crate) log: PathBuf,
    /// Exists while the child runs; see [`super::PidFile`].
    pub(crate) pid_file: PathBuf,
    /// Only root can run a child as another user.
    pub(crate) account: Option<Account>,
    /// Sent by the kernel when the launcher dies: `KILL`, or a signal on which the child cleans up.
    pub(crate) death_signal: &'static str,
}

/// Spawns a child. Also returns the length of its log before.
pub(super) fn spawn(launch: &Launch) -> io::Result<(Child, u64)> {
    let log_file = OpenOptions::new().create(true).append(true).open(&launch.log)?;
    let log_from = log_file.metadata()?.len();
    let mut command = command(launch);
    command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file);
    Ok((spawn_from_thread(command)?, log_from))
}

fn command(launch: &Launch) -> Command {
    let mut command = match find_on_path("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            if let Some(account) = &launch.account {
                command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid));
                command.arg("--clear-groups");
            }
            command.args(["--pdeathsig", launch.death_signal, "--"]).arg(&launch.program);
            command
        }
        // Without setpriv only the watchdog cleans up after a launcher that dies.
        None => {
            let mut command = Command::new(&launch.program);
            if let Some(account) = &launch.account {
                command.uid(account.uid).gid(account.gid);
            }
            command
        }
    };
    // In a process group of its own: Ctrl-C reaches only the launcher, which then stops everything in order.
    command.args(&launch.args).envs(launch.env.iter().cloned()).current_dir(&launch.cwd).process_group(0);
    command
}

type Spawned = io::Result<Child>;
type SpawnRequest = (Command, mpsc::Sender<Spawned>);

/// Spawns from one thread that lives as long as this process. The kernel sends the parent death signal when the *thread*
/// that spawned the child ends: spawned from a test's thread, the shared stack would die with the first test.
fn spawn_from_thread(command: Command) -> Spawned {
    static REQUESTS: OnceLock<mpsc::Sender<SpawnRequest>> = OnceLock::new();
    let requests = REQUESTS.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<SpawnRequest>();
        let serve = move || {
            for (mut command, reply) in inbox {
                // The requester is gone: without it the child would run unsupervised.
                if let Err(mpsc::SendError(Ok(mut child))) = reply.send(command.spawn()) {
                    child.kill().and_then(|()| child.wait()).ok();
                }
            }
        };
        // If the thread cannot be started, its inbox is dropped, and the send below fails.
        thread::Builder::new().name("spawner".to_owned()).spawn(serve).ok();
        requests
    });
    let ended = || io::Error::other("the spawning thread has ended");
    let (reply, spawned) = mpsc::channel();
    requests.send((command, reply)).map_err(|_| ended())?;
    spawned.recv().map_err(|_| ended())?
}

/// An executable of this name on `PATH`, or in the directories where Debian installs servers and tools.
pub(crate) fn find_on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|file| file.is_file())
}
