//! One child process: spawned, signalled and waited for.
//!
//! Guarantees: the kernel kills a child when its launcher dies (see `spawn`). A signal never reaches another process
//! that got the pid of a child that has ended: a child is reaped under the lock under which it is signalled. Nothing
//! depends on the caller's runtime or thread, because tests start a stack in one and use it in another.
//!
//! `pid_file`, `procfs` and `watchdog` concern processes that an earlier launcher left running; `logs` and `tool` turn
//! output into one-line errors.

mod logs;
mod pid_file;
mod procfs;
mod signals;
mod spawn;
mod tool;
mod watchdog;

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;

pub(crate) use logs::{last_line, relevant_line};
pub(crate) use pid_file::PidFile;
pub(crate) use procfs::{children_of, end_postgres_in, remove_shared_memory};
pub use signals::shutdown_signal;
pub(crate) use spawn::{Account, Launch, find_on_path};
pub(crate) use tool::finished;
pub(crate) use watchdog::Watchdog;

/// A running child, or one that has ended.
#[derive(Clone)]
pub(crate) struct Process {
    pid: Pid,
    started: Instant,
    /// Length of the log when the child was started.
    log_from: u64,
    exit: watch::Receiver<Option<ExitStatus>>,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Alive,
    /// SIGKILL was sent: the child counts as ended, although the kernel may need a moment.
    Killed,
    Reaped,
}

impl Process {
    pub(crate) fn start(launch: &Launch) -> io::Result<Self> {
        let (child, log_from) = spawn::spawn(launch)?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        PidFile::write(&launch.pid_file, pid)?;
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

    /// False as soon as SIGKILL was sent, even before the child has ended.
    pub(crate) fn is_alive(&self) -> bool {
        *lock(&self.state) == State::Alive
    }

    /// The exit status; `None` while the child runs.
    pub(crate) fn exit(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Sends a signal unless the child has ended; returns whether it was sent.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let mut state = lock(&self.state);
        if *state == State::Reaped {
            return false;
        }
        if signal == Signal::SIGKILL {
            *state = State::Killed;
        }
        signal::kill(self.pid, signal).is_ok()
    }

    /// Waits for the exit, at most this long.
    pub(crate) async fn ended_within(&self, limit: Duration) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        let ended = tokio::time::timeout(limit, exit.wait_for(Option::is_some)).await;
        ended.ok().and_then(Result::ok).and_then(|status| *status)
    }

    /// The same for callers that cannot await (`Drop`).
    pub(crate) fn ended_by(&self, deadline: Instant) -> bool {
        while self.exit().is_none() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.exit().is_some()
    }
}

/// Waits for the exit of one child on a thread of its own.
struct Reaper {
    child: std::process::Child,
    pid: Pid,
    state: Arc<Mutex<State>>,
    ended: watch::Sender<Option<ExitStatus>>,
    pid_file: PathBuf,
}

impl Reaper {
    fn run(mut self) {
        // WNOWAIT leaves the zombie: until it is reaped, the kernel does not reuse its pid.
        while waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        let mut state = lock(&self.state);
        let status = self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0));
        *state = State::Reaped;
        drop(state);
        PidFile::remove(&self.pid_file, self.pid);
        self.ended.send_replace(Some(status));
    }
}

/// An exit status as text.
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

/// Locks a mutex even if a holder panicked: every value in this crate is replaced in one step, so it is still valid.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
