//! Fault injection, and starting children again.

use std::mem::discriminant;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};

use super::{Inner, Stack, health, port_names, stop_rule};
use crate::child::Child;
use crate::error::StackError;
use crate::process::{Process, children_of, describe, last_line, lock};
use crate::servers::{disk, kafka, postgres, redis, stampede};

const CHECK_INTERVAL: Duration = Duration::from_millis(25);
/// How long a child may take to end after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

impl Stack {
    /// Whether the child is running. A frozen child is running, a killed one is not.
    #[must_use]
    pub fn is_running(&self, child: Child) -> bool {
        self.inner.process(child).is_ok_and(|process| process.is_alive())
    }

    /// The process id of a running child.
    #[must_use]
    pub fn pid(&self, child: Child) -> Option<i32> {
        self.inner.process(child).ok().filter(Process::is_alive).map(|process| process.pid().as_raw())
    }

    /// How often a supervisor has restarted it.
    #[must_use]
    pub fn restarts(&self, child: Child) -> u32 {
        lock(&self.inner.children).get(&child).map_or(0, |entry| entry.restarts)
    }

    /// SIGKILL. A supervisor restarts the child. Of Postgres only the postmaster is killed; its backends end after it.
    ///
    /// # Errors
    /// When the child is not running.
    pub fn kill(&self, child: Child) -> Result<(), StackError> {
        self.inner.signal(child, Signal::SIGKILL)
    }

    /// SIGKILL. A supervisor does not restart the child.
    ///
    /// # Errors
    /// When the child is not running.
    pub fn kill_permanently(&self, child: Child) -> Result<(), StackError> {
        if let Some(entry) = lock(&self.inner.children).get_mut(&child) {
            entry.wanted = false;
        }
        self.kill(child)
    }

    /// Postgres' immediate shutdown (SIGQUIT): connections are cut, nothing is flushed. A supervisor restarts it.
    ///
    /// # Errors
    /// When the child is not running.
    pub fn stop_postgres_immediately(&self) -> Result<(), StackError> {
        self.inner.signal(Child::Postgres, Signal::SIGQUIT)
    }

    /// SIGTERM (for Postgres SIGINT, its fast shutdown), without waiting. A supervisor does not restart the child.
    ///
    /// # Errors
    /// When the child is not running.
    pub fn terminate(&self, child: Child) -> Result<(), StackError> {
        if let Some(entry) = lock(&self.inner.children).get_mut(&child) {
            entry.wanted = false;
        }
        self.inner.signal(child, stop_rule(child).signal)
    }

    /// [`Stack::terminate`], and waits until the child has ended.
    ///
    /// # Errors
    /// When it did not stop in time and was killed.
    pub async fn stop_child(&self, child: Child) -> Result<(), StackError> {
        if self.inner.stop_process(child).await {
            return Ok(());
        }
        Err(StackError::DidNotStop { children: child.to_string(), logs: self.data_dir().join("logs") })
    }

    /// SIGSTOP: the child keeps its connections and does not respond. Stops all processes of Postgres.
    ///
    /// # Errors
    /// When the child is not running.
    pub fn freeze(&self, child: Child) -> Result<(), StackError> {
        self.inner.signal_all(child, Signal::SIGSTOP)
    }

    /// SIGCONT: undoes [`Stack::freeze`].
    ///
    /// # Errors
    /// When the child is not running.
    pub fn resume(&self, child: Child) -> Result<(), StackError> {
        self.inner.signal_all(child, Signal::SIGCONT)
    }

    /// Starts a child on the same port and data, without waiting until it is healthy. Does nothing if it is running.
    ///
    /// # Errors
    /// When the stack has no such child, is stopped, or the child cannot be spawned.
    pub async fn start_child(&self, child: Child) -> Result<(), StackError> {
        self.inner.start_process(child).await
    }

    /// Waits until the child is healthy, at most [`crate::StackConfig::startup_timeout`].
    ///
    /// # Errors
    /// When it exits instead (and no supervisor restarts it), or takes too long.
    pub async fn wait_healthy(&self, child: Child) -> Result<(), StackError> {
        self.inner.wait_healthy(child, self.inner.exit_is_final()).await
    }

    /// Waits until all replicas are in sync, at most [`crate::StackConfig::startup_timeout`]: a restarted broker has to
    /// catch up, and until then another one must not die.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn wait_in_sync(&self) -> Result<(), StackError> {
        let begun = Instant::now();
        while !health::is_in_sync(&self.inner.context).await {
            if begun.elapsed() > self.inner.context.config.startup_timeout {
                return Err(StackError::OutOfSync { seconds: begun.elapsed().as_secs_f32() });
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        Ok(())
    }

    /// [`Stack::start_child`] and [`Stack::wait_healthy`].
    ///
    /// # Errors
    /// Those of both.
    pub async fn restart(&self, child: Child) -> Result<(), StackError> {
        self.inner.start_process(child).await?;
        self.inner.wait_healthy(child, self.inner.exit_is_final()).await
    }

    /// Waits until the current process of the child has ended.
    ///
    /// # Errors
    /// When it is still running after `limit`, or was never started.
    pub async fn wait_exit(&self, child: Child, limit: Duration) -> Result<ExitStatus, StackError> {
        let ended = self.inner.process(child)?.ended_within(limit).await;
        ended.ok_or(StackError::StillRuns { child, seconds: limit.as_secs_f32() })
    }

    /// Fills the small disk of Postgres' tables to the last byte.
    ///
    /// # Errors
    /// When the stack has no such disk, or it cannot be written for another reason.
    pub fn fill_postgres_disk(&self) -> Result<(), StackError> {
        self.inner.require_postgres_disk().and_then(|()| disk::fill(self.data_dir()))
    }

    /// Frees what [`Stack::fill_postgres_disk`] has taken.
    ///
    /// # Errors
    /// When the stack has no such disk, or it was not filled.
    pub fn free_postgres_disk(&self) -> Result<(), StackError> {
        self.inner.require_postgres_disk().and_then(|()| disk::free(self.data_dir()))
    }

    /// Replaces the extra environment of a child, from its next start on.
    ///
    /// # Errors
    /// When the stack has no such child.
    pub fn set_env(&self, child: Child, extra: Vec<(String, String)>) -> Result<(), StackError> {
        let mut children = lock(&self.inner.children);
        children.get_mut(&child).ok_or(StackError::NotRunning(child))?.extra_env = extra;
        Ok(())
    }

    /// Starts one more worker, with `extra` added to the environment of all; does not wait until it is healthy.
    ///
    /// # Errors
    /// When it cannot be spawned.
    pub async fn spawn_worker(&self, extra: Vec<(String, String)>) -> Result<Child, StackError> {
        self.inner.spawn_another(Child::Worker, extra).await
    }

    /// Starts one more `ingest-api`, in the same way.
    ///
    /// # Errors
    /// When it cannot be spawned.
    pub async fn spawn_api(&self, extra: Vec<(String, String)>) -> Result<Child, StackError> {
        self.inner.spawn_another(Child::Api, extra).await
    }
}

impl Inner {
    pub(crate) fn process(&self, child: Child) -> Result<Process, StackError> {
        let children = lock(&self.children);
        children.get(&child).and_then(|entry| entry.process.clone()).ok_or(StackError::NotRunning(child))
    }

    fn signal(&self, child: Child, signal: Signal) -> Result<(), StackError> {
        if self.process(child)?.signal(signal) { Ok(()) } else { Err(StackError::NotRunning(child)) }
    }

    /// Signals the child, and for Postgres its backends as well.
    pub(crate) fn signal_all(&self, child: Child, signal: Signal) -> Result<(), StackError> {
        self.signal(child, signal)?;
        // After the postmaster, which would otherwise start more.
        if child == Child::Postgres {
            for pid in children_of(self.process(child)?.pid()) {
                signal::kill(pid, signal).ok();
            }
        }
        Ok(())
    }

    async fn spawn_another(
        &self,
        kind: fn(usize) -> Child,
        extra: Vec<(String, String)>,
    ) -> Result<Child, StackError> {
        let child = {
            let _one_at_a_time = self.registering.lock().await;
            let same_kind = |known: &&Child| discriminant(*known) == discriminant(&kind(0));
            let index = lock(&self.children).keys().filter(same_kind).count();
            let child = kind(index);
            self.register(child, self.default_env(child).into_iter().chain(extra).collect())?;
            child
        };
        self.start_process(child).await.map(|()| child)
    }

    /// Spawns the child if it is not running.
    pub(crate) async fn start_process(&self, child: Child) -> Result<(), StackError> {
        let starting = {
            let children = lock(&self.children);
            Arc::clone(&children.get(&child).ok_or(StackError::NotRunning(child))?.starting)
        };
        let _one_at_a_time = starting.lock().await;
        if let Ok(before) = self.process(child) {
            if before.is_alive() && before.exit().is_none() {
                return Ok(());
            }
            before.ended_within(KILL_TIMEOUT).await;
        }
        self.prepare(child).await?;
        let extra = lock(&self.children).get(&child).map(|entry| entry.extra_env.clone()).unwrap_or_default();
        let mut launch = match child {
            Child::Kafka | Child::Broker(_) => kafka::launch(&self.context, child),
            Child::Redis => redis::launch(&self.context),
            Child::Postgres => postgres::launch(&self.context),
            Child::Api(_) | Child::Worker(_) => {
                stampede::launch(&self.context, child, &extra).ok_or(StackError::NotRunning(child))?
            }
        };
        if !matches!(child, Child::Api(_) | Child::Worker(_)) {
            launch.env.extend(extra);
        }
        let mut children = lock(&self.children);
        // Under the lock, so that a concurrent stop sees either this process or none.
        if self.closing.load(Ordering::SeqCst) {
            return Err(StackError::Stopped);
        }
        for name in port_names(&self.context.config, child) {
            lock(&self.context.ports).release(&name);
        }
        let process = Process::start(&launch).map_err(StackError::io("cannot start", &launch.program))?;
        if let Some(entry) = children.get_mut(&child) {
            entry.process = Some(process);
            entry.wanted = true;
        }
        Ok(())
    }

    /// Creates what the child needs before it is spawned.
    async fn prepare(&self, child: Child) -> Result<(), StackError> {
        match child {
            Child::Kafka | Child::Broker(_) => kafka::prepare(&self.context, child).await,
            Child::Redis => redis::prepare(&self.context),
            Child::Postgres => {
                let context = Arc::clone(&self.context);
                tokio::task::spawn_blocking(move || postgres::prepare(&context))
                    .await
                    .unwrap_or(Err(StackError::Stopped))
            }
            Child::Api(_) | Child::Worker(_) => Ok(()),
        }
    }

    fn require_postgres_disk(&self) -> Result<(), StackError> {
        if self.context.config.postgres_disk_mb.is_some() {
            return Ok(());
        }
        Err(StackError::Missing {
            what: "a small disk for Postgres".to_owned(),
            remedy: "set StackConfig.postgres_disk_mb",
        })
    }

    /// Whether no supervisor restarts children.
    pub(crate) fn exit_is_final(&self) -> bool {
        self.supervisors.load(Ordering::SeqCst) == 0
    }

    pub(crate) async fn wait_healthy(&self, child: Child, exit_is_final: bool) -> Result<(), StackError> {
        let timeout = self.context.config.startup_timeout;
        let begun = Instant::now();
        loop {
            let process = self.process(child)?;
            if process.is_alive() && health::is_healthy(&self.context, child).await && process.is_alive() {
                return Ok(());
            }
            let reason = match process.exit() {
                _ if self.closing.load(Ordering::SeqCst) => return Err(StackError::Stopped),
                Some(status) if exit_is_final => describe(status),
                _ if begun.elapsed() > timeout => format!("not healthy after {} s", timeout.as_secs()),
                _ => {
                    tokio::time::sleep(CHECK_INTERVAL).await;
                    continue;
                }
            };
            let log = self.context.dir.log_file(child);
            let last_line = last_line(&log, process.log_from());
            return Err(StackError::DidNotComeUp { child, reason, last_line, log });
        }
    }
}
