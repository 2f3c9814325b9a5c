//! Faults on purpose, and starting a child again after them.

use std::mem::discriminant;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};

use crate::process::{Process, describe, lock};
use crate::stack::{Inner, port_names};
use crate::{Child, Stack, StackError, health, kafka, logs, ours, postgres, procfs, redis};

const BETWEEN_QUESTIONS: Duration = Duration::from_millis(25);
/// How long the kernel may take to carry out a SIGKILL.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

impl Stack {
    /// Whether the child runs; a frozen one does, a killed one does not.
    #[must_use]
    pub fn is_running(&self, child: Child) -> bool {
        self.inner.process(child).is_ok_and(|process| process.is_alive())
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self, child: Child) -> Option<i32> {
        self.inner.process(child).ok().filter(Process::is_alive).map(|process| process.pid().as_raw())
    }

    /// How often a supervisor has started it again.
    #[must_use]
    pub fn restarts(&self, child: Child) -> u32 {
        lock(&self.inner.members).get(&child).map_or(0, |member| member.restarts)
    }

    /// SIGKILL. A supervisor starts it again. Of Postgres only the postmaster is killed; its backends notice and end.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, child: Child) -> Result<(), StackError> {
        self.inner.signal(child, Signal::SIGKILL)
    }

    /// SIGKILL, and a supervisor leaves it down.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_for_good(&self, child: Child) -> Result<(), StackError> {
        if let Some(member) = lock(&self.inner.members).get_mut(&child) {
            member.wanted = false;
        }
        self.kill(child)
    }

    /// Postgres' immediate shutdown (SIGQUIT): connections are cut, nothing is flushed. A supervisor starts it again.
    ///
    /// # Errors
    /// When it does not run.
    pub fn stop_immediate(&self) -> Result<(), StackError> {
        self.inner.signal(Child::Postgres, Signal::SIGQUIT)
    }

    /// SIGTERM (for Postgres SIGINT, its fast shutdown) without waiting. A supervisor leaves it down.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&self, child: Child) -> Result<(), StackError> {
        if let Some(member) = lock(&self.inner.members).get_mut(&child) {
            member.wanted = false;
        }
        self.inner.signal(child, crate::stack::stop_order(child).1)
    }

    /// [`Stack::terminate`], and waits until it is gone.
    ///
    /// # Errors
    /// When it did not stop in time and had to be killed.
    pub async fn stop_child(&self, child: Child) -> Result<(), StackError> {
        if self.inner.stop_process(child).await {
            return Ok(());
        }
        Err(StackError::DidNotStop { children: child.to_string(), logs: self.data_dir().join("logs") })
    }

    /// SIGSTOP: it keeps its connections and says nothing. Of Postgres all processes.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self, child: Child) -> Result<(), StackError> {
        self.inner.signal_all(child, Signal::SIGSTOP)
    }

    /// SIGCONT: undoes [`Stack::freeze`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, child: Child) -> Result<(), StackError> {
        self.inner.signal_all(child, Signal::SIGCONT)
    }

    /// Starts a child that does not run, on the same port and data, without waiting until it is healthy. Does nothing
    /// if it runs.
    ///
    /// # Errors
    /// When the stack has no such child, is stopped, or the child cannot be spawned.
    pub async fn start_child(&self, child: Child) -> Result<(), StackError> {
        self.inner.start_process(child).await
    }

    /// Waits until the child does its work, at most the configured patience.
    ///
    /// # Errors
    /// When it ends instead (and no supervisor is there to start it again), or takes too long.
    pub async fn wait_healthy(&self, child: Child) -> Result<(), StackError> {
        self.inner.wait_healthy(child, self.inner.death_is_final()).await
    }

    /// Waits until all brokers have all records of their topics, at most the configured patience: a broker that was
    /// started again has to catch up, and until then another one must not die.
    ///
    /// # Errors
    /// When it takes longer.
    pub async fn wait_in_sync(&self) -> Result<(), StackError> {
        let begun = Instant::now();
        while !health::is_in_sync(&self.inner.site).await {
            if begun.elapsed() > self.inner.site.config.patience {
                return Err(StackError::OutOfSync { seconds: begun.elapsed().as_secs_f32() });
            }
            tokio::time::sleep(BETWEEN_QUESTIONS).await;
        }
        Ok(())
    }

    /// [`Stack::start_child`] and [`Stack::wait_healthy`].
    ///
    /// # Errors
    /// Those of both.
    pub async fn restart(&self, child: Child) -> Result<(), StackError> {
        self.inner.start_process(child).await?;
        self.inner.wait_healthy(child, self.inner.death_is_final()).await
    }

    /// Waits until the child's present process has ended.
    ///
    /// # Errors
    /// When it still runs after `limit`, or was never started.
    pub async fn wait_exit(&self, child: Child, limit: Duration) -> Result<ExitStatus, StackError> {
        let ended = self.inner.process(child)?.ended_within(limit).await;
        ended.ok_or(StackError::StillRuns { child, seconds: limit.as_secs_f32() })
    }

    /// Replaces the extra environment of a child of ours, from its next start on.
    ///
    /// # Errors
    /// When the stack has no such child.
    pub fn set_env(&self, child: Child, extra: Vec<(String, String)>) -> Result<(), StackError> {
        let mut members = lock(&self.inner.members);
        members.get_mut(&child).ok_or(StackError::NotRunning(child))?.extra_env = extra;
        Ok(())
    }

    /// One more worker, with `extra` on top of the environment that all have; not waited for.
    ///
    /// # Errors
    /// When it cannot be spawned.
    pub async fn spawn_worker(&self, extra: Vec<(String, String)>) -> Result<Child, StackError> {
        self.inner.spawn_another(Child::Worker, extra).await
    }

    /// One more `ingest-api`, the same way.
    ///
    /// # Errors
    /// When it cannot be spawned.
    pub async fn spawn_api(&self, extra: Vec<(String, String)>) -> Result<Child, StackError> {
        self.inner.spawn_another(Child::Api, extra).await
    }
}

impl Inner {
    pub(crate) fn process(&self, child: Child) -> Result<Process, StackError> {
        let members = lock(&self.members);
        members.get(&child).and_then(|member| member.process.clone()).ok_or(StackError::NotRunning(child))
    }

    fn signal(&self, child: Child, signal: Signal) -> Result<(), StackError> {
        if self.process(child)?.signal(signal) { Ok(()) } else { Err(StackError::NotRunning(child)) }
    }

    /// The child, and for Postgres its backends as well.
    pub(crate) fn signal_all(&self, child: Child, signal: Signal) -> Result<(), StackError> {
        self.signal(child, signal)?;
        // The postmaster first, or it would start more while we are at it.
        if child == Child::Postgres {
            for pid in procfs::children_of(self.process(child)?.pid()) {
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
            let _one_at_a_time = self.admitting.lock().await;
            let same_kind = |known: &&Child| discriminant(*known) == discriminant(&kind(0));
            let index = lock(&self.members).keys().filter(same_kind).count();
            let child = kind(index);
            self.admit(child, self.default_env(child).into_iter().chain(extra).collect())?;
            child
        };
        self.start_process(child).await.map(|()| child)
    }

    /// Spawns the child if it does not run.
    pub(crate) async fn start_process(&self, child: Child) -> Result<(), StackError> {
        let starting = {
            let members = lock(&self.members);
            Arc::clone(&members.get(&child).ok_or(StackError::NotRunning(child))?.starting)
        };
        let _one_at_a_time = starting.lock().await;
        if let Ok(before) = self.process(child) {
            if before.is_alive() && before.exit().is_none() {
                return Ok(());
            }
            before.ended_within(KILLED_WITHIN).await;
        }
        self.prepare(child).await?;
        let extra =
            lock(&self.members).get(&child).map(|member| member.extra_env.clone()).unwrap_or_default();
        let launch = match child {
            Child::Kafka | Child::Broker(_) => kafka::launch(&self.site, child),
            Child::Redis => redis::launch(&self.site),
            Child::Postgres => postgres::launch(&self.site),
            Child::Api(_) | Child::Worker(_) => {
                ours::launch(&self.site, child, &extra).ok_or(StackError::NotRunning(child))?
            }
        };
        let mut members = lock(&self.members);
        // Under the lock: whoever ends the stack sees either this process or none.
        if self.closing.load(Ordering::SeqCst) {
            return Err(StackError::Stopped);
        }
        for name in port_names(&self.site.config, child) {
            lock(&self.site.ports).release(&name);
        }
        let process = Process::start(&launch).map_err(StackError::io("cannot start", &launch.program))?;
        if let Some(member) = members.get_mut(&child) {
            member.process = Some(process);
            member.wanted = true;
        }
        Ok(())
    }

    /// What must be there before the child can be spawned.
    async fn prepare(&self, child: Child) -> Result<(), StackError> {
        match child {
            Child::Kafka | Child::Broker(_) => kafka::prepare(&self.site, child).await,
            Child::Redis => redis::prepare(&self.site),
            Child::Postgres => {
                let site = Arc::clone(&self.site);
                tokio::task::spawn_blocking(move || postgres::prepare(&site))
                    .await
                    .unwrap_or(Err(StackError::Stopped))
            }
            Child::Api(_) | Child::Worker(_) => Ok(()),
        }
    }

    /// Without a supervisor nobody starts a dead child again.
    pub(crate) fn death_is_final(&self) -> bool {
        self.supervisors.load(Ordering::SeqCst) == 0
    }

    pub(crate) async fn wait_healthy(&self, child: Child, death_is_final: bool) -> Result<(), StackError> {
        let patience = self.site.config.patience;
        let begun = Instant::now();
        loop {
            let process = self.process(child)?;
            if process.is_alive() && health::is_healthy(&self.site, child).await && process.is_alive() {
                return Ok(());
            }
            let why = match process.exit() {
                _ if self.closing.load(Ordering::SeqCst) => return Err(StackError::Stopped),
                Some(status) if death_is_final => describe(status),
                _ if begun.elapsed() > patience => format!("not healthy after {} s", patience.as_secs()),
                _ => {
                    tokio::time::sleep(BETWEEN_QUESTIONS).await;
                    continue;
                }
            };
            let log = self.site.dir.log_file(child);
            let last_line = logs::last_line(&log, process.log_from());
            return Err(StackError::DidNotComeUp { child, why, last_line, log });
        }
    }
}
