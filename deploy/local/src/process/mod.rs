//! One child process: how it is spawned, signalled and waited for.
//!
//! Three things must hold. The kernel kills a child when its launcher dies (the parent death signal, set by `setpriv`,
//! because setting it here would need `unsafe`). A signal never reaches a stranger that got the pid of a child which is
//! gone: a child is reaped under the same lock under which it is signalled. And nothing depends on the caller's runtime
//! or thread, because tests start a stack in one and use it in another.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::procfs;
use crate::programs::{Account, find_on_path};

/// What to spawn, and how.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    /// Standard output and error are appended here.
    pub(crate) log: PathBuf,
    /// Written while the child lives: its pid and start time, for the watchdog and for the next run.
    pub(crate) pid_file: PathBuf,
    /// Another user to run as; only root can.
    pub(crate) account: Option<Account>,
    /// What the kernel sends when the launcher dies: `KILL`, or what makes the child clean up behind itself.
    pub(crate) death_signal: &'static str,
}

/// A running child, or one that has ended.
#[derive(Clone)]
pub(crate) struct Process {
    pid: Pid,
    started: Instant,
    /// Length of the log when it was started.
    log_from: u64,
    exit: watch::Receiver<Option<ExitStatus>>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Alive,
    /// SIGKILL is sent: it counts as gone, although the kernel may need a moment.
    Doomed,
    Reaped,
}

impl Process {
    pub(crate) fn start(launch: &Launch) -> io::Result<Self> {
        let log_file = OpenOptions::new().create(true).append(true).open(&launch.log)?;
        let log_from = log_file.metadata()?.len();
        let mut command = command(launch);
        command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file);
        let child = spawn(command)?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        write_pid_file(&launch.pid_file, pid)?;
        let (ended, exit) = watch::channel(None);
        let state = Arc::new(Mutex::new(State::Alive));
        let reaper =
            Reaper { child, pid, state: Arc::clone(&state), ended, pid_file: launch.pid_file.clone() };
        thread::Builder::new().name("reaper".to_owned()).spawn(move || reaper.run())?;
        Ok(Self { pid, started: Instant::now(), log_from, exit, state })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn log_from(&self) -> u64 {
        self.log_from
    }

    /// False as soon as it was killed, also before the kernel has carried it out.
    pub(crate) fn is_alive(&self) -> bool {
        *lock(&self.state) == State::Alive
    }

    /// How it ended; `None` while it has not.
    pub(crate) fn exit(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Sends a signal, unless the child is gone; answers whether it was sent.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let mut state = lock(&self.state);
        if *state == State::Reaped {
            return false;
        }
        if signal == Signal::SIGKILL {
            *state = State::Doomed;
        }
        signal::kill(self.pid, signal).is_ok()
    }

    /// Waits for the end, at most this long.
    pub(crate) async fn ended_within(&self, limit: Duration) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        let ended = tokio::time::timeout(limit, exit.wait_for(Option::is_some)).await;
        ended.ok().and_then(Result::ok).and_then(|status| *status)
    }

    /// The same for places that cannot wait asynchronously (`Drop`).
    pub(crate) fn ended_by(&self, deadline: Instant) -> bool {
        while self.exit().is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.exit().is_some()
    }
}

struct Reaper {
    child: std::process::Child,
    pid: Pid,
    state: Arc<Mutex<State>>,
    ended: watch::Sender<Option<ExitStatus>>,
    pid_file: PathBuf,
}

impl Reaper {
    fn run(mut self) {
        // Leaves the zombie in place: as long as it is there, nobody else can have its pid.
        while waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        let mut state = lock(&self.state);
        let status = self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0));
        *state = State::Reaped;
        drop(state);
        remove_pid_file(&self.pid_file, self.pid);
        self.ended.send_replace(Some(status));
    }
}

/// How a child ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(number), _) => {
            let name =
                Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |s| s.to_string());
            format!("was killed by {name}")
        }
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
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
        // Without it the watchdog alone cleans up behind a launcher that dies.
        None => {
            let mut command = Command::new(&launch.program);
            if let Some(account) = &launch.account {
                command.uid(account.uid).gid(account.gid);
            }
            command
        }
    };
    // A group of its own: Ctrl-C reaches the launcher alone, which then stops everything in order.
    command.args(&launch.args).envs(launch.env.iter().cloned()).current_dir(&launch.cwd).process_group(0);
    command
}

type Spawned = io::Result<std::process::Child>;
type Order = (Command, mpsc::Sender<Spawned>);

/// Spawns from one thread that lives as long as this process. The parent death signal comes when the *thread* that
/// spawned the child ends: spawned by a test's thread, the shared stack would die with the first test.
fn spawn(command: Command) -> Spawned {
    static ORDERS: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        let serve = move || {
            for (mut command, answer) in inbox {
                // Nobody waits any more: the child must not run unseen.
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    child.kill().and_then(|()| child.wait()).ok();
                }
            }
        };
        // Should there be no thread, its inbox is dropped with it, and sending says so below.
        thread::Builder::new().name("spawner".to_owned()).spawn(serve).ok();
        orders
    });
    let gone = || io::Error::other("the spawning thread is gone");
    let (answer, spawned) = mpsc::channel();
    orders.send((command, answer)).map_err(|_| gone())?;
    spawned.recv().map_err(|_| gone())?
}

fn write_pid_file(file: &Path, pid: Pid) -> io::Result<()> {
    fs::write(file, format!("{pid} {}\n", procfs::start_time(pid).unwrap_or(0)))
}

/// Only its own: a successor may have written there already.
fn remove_pid_file(file: &Path, pid: Pid) {
    let owner = fs::read_to_string(file).unwrap_or_default();
    if owner.split(' ').next() == Some(pid.to_string().as_str()) {
        fs::remove_file(file).ok();
    }
}

/// A lock whose holder panicked still guards valid values here: each is replaced in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
