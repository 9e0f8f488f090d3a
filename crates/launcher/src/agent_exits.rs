//! Exits of agents. It reaps agents that this process started, waits for those that another or an earlier server
//! started, and keeps each exit until it is handled.

use std::collections::{HashMap, hash_map};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlflow_sync::lock;
use tokio::process::Child;
use tokio::sync::watch;

use sqlflow_job::ExecutorRef;

/// Time after which a caller that could not handle an exit is woken again.
const REPEAT_PAUSE: Duration = Duration::from_millis(100);
/// Time after which an exit is forgotten that this server does not clean up, because another server reconciles the job
/// now.
const KEEP_TIME: Duration = Duration::from_secs(600);

/// One entry for each attempt whose agent this process started or adopted: while the agent runs, then until the attempt
/// is cleaned up or [`KEEP_TIME`] has passed. A running agent costs a descriptor.
#[derive(Clone, Default)]
pub(super) struct Exits(Arc<Mutex<HashMap<ExecutorRef, Entry>>>);

struct Entry {
    /// Number of the attempt's agents that have not exited. There may be two for a moment, if the start of the first
    /// one could not be recorded.
    running: watch::Sender<usize>,
    is_reported: bool,
    /// Whether this process has sent TERM to the agent.
    is_termed: bool,
}

impl Exits {
    /// Waits for the agent in a task, and calls `then` when it has exited.
    pub(super) fn reap(&self, executor: ExecutorRef, mut child: Child, then: impl FnOnce() + Send + 'static) {
        lock(&self.0).entry(executor.clone()).or_insert_with(Entry::new).running.send_modify(|it| *it += 1);
        self.follow(
            executor,
            async move {
                // Does not block: tokio waits with a pidfd. It fails only if other code reaped the process.
                let _ = child.wait().await;
            },
            then,
        );
    }

    /// Waits in a task for `exit`, that of an agent which another process started. No effect if the executor has an
    /// entry.
    pub(super) fn adopt(&self, executor: &ExecutorRef, exit: impl Future<Output = ()> + Send + 'static) {
        match lock(&self.0).entry(executor.clone()) {
            hash_map::Entry::Occupied(_) => return,
            hash_map::Entry::Vacant(vacant) => vacant.insert(Entry::new()).running.send_replace(1),
        };
        self.follow(executor.clone(), exit, || ());
    }

    /// Records the exit in the executor's entry, calls `then`, and removes the entry later.
    fn follow(
        &self,
        executor: ExecutorRef,
        exit: impl Future<Output = ()> + Send + 'static,
        then: impl FnOnce() + Send + 'static,
    ) {
        let exits = self.clone();
        tokio::spawn(async move {
            exit.await;
            let entry = lock(&exits.0).get(&executor).map(|entry| {
                entry.running.send_modify(|it| *it = it.saturating_sub(1));
                entry.running.subscribe()
            });
            then();
            let Some(mut entry) = entry else { return };
            let forgotten = async { while entry.changed().await.is_ok() {} };
            if tokio::time::timeout(KEEP_TIME, forgotten).await.is_err() {
                exits.forget(&executor);
            }
        });
    }

    /// Waits until all agents of the attempt that this process started or adopted have exited; forever if there was
    /// none.
    pub(super) async fn exited(&self, executor: &ExecutorRef) {
        let running = lock(&self.0).get(executor).map(|entry| entry.running.subscribe());
        let Some(mut running) = running else { return std::future::pending().await };
        if running.wait_for(|count| *count == 0).await.is_err() {
            // It was cleaned up in the meantime.
            return;
        }
        let is_repeat = match lock(&self.0).get_mut(executor) {
            Some(entry) => std::mem::replace(&mut entry.is_reported, true),
            None => false,
        };
        if is_repeat {
            tokio::time::sleep(REPEAT_PAUSE).await;
        }
    }

    /// Whether this process now sends the first TERM to the attempt's agent. Nothing is recorded for an attempt without
    /// an entry.
    pub(super) fn is_first_term(&self, executor: &ExecutorRef) -> bool {
        lock(&self.0).get_mut(executor).is_none_or(|entry| !std::mem::replace(&mut entry.is_termed, true))
    }

    /// Removes the attempt's entry, unless an agent of it still runs here.
    pub(super) fn forget(&self, executor: &ExecutorRef) {
        let mut entries = lock(&self.0);
        if entries.get(executor).is_some_and(|entry| *entry.running.borrow() == 0) {
            entries.remove(executor);
        }
    }
}

impl Entry {
    fn new() -> Self {
        Self { running: watch::Sender::new(0), is_reported: false, is_termed: false }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use sqlflow_job::{AttemptId, JobId};
    use tokio::process::Command;
    use tokio::sync::oneshot;

    use super::*;

    fn executor() -> ExecutorRef {
        ExecutorRef::of_attempt(&AttemptId { job: JobId::generate(), step: 0, number: 1 })
    }

    /// Starts a program as the attempt's agent; resolves when its exit was recorded.
    fn start(exits: &Exits, executor: &ExecutorRef, command: &mut Command) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        exits.reap(executor.clone(), command.spawn().unwrap(), move || sender.send(()).unwrap_or_default());
        receiver
    }

    #[tokio::test]
    async fn exit_without_a_waiter_is_kept() {
        let (exits, executor) = (Exits::default(), executor());
        start(&exits, &executor, &mut Command::new("true")).await.unwrap();
        assert!(exits.exited(&executor).now_or_never().is_some(), "the first caller is not kept waiting");
        exits.exited(&executor).await;
    }

    #[tokio::test]
    async fn attempt_has_exited_when_its_last_agent_has() {
        let (exits, executor) = (Exits::default(), executor());
        let first = Command::new("sleep").arg("1000").kill_on_drop(true).spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(first.id().unwrap().try_into().unwrap());
        let (sender, first_exit) = oneshot::channel();
        exits.reap(executor.clone(), first, move || sender.send(()).unwrap_or_default());
        start(&exits, &executor, &mut Command::new("true")).await.unwrap();
        assert!(exits.exited(&executor).now_or_never().is_none(), "the first one still runs");
        exits.forget(&executor);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        first_exit.await.unwrap();
        exits.exited(&executor).await;
    }

    #[tokio::test]
    async fn cleanup_removes_the_entry() {
        let (exits, executor) = (Exits::default(), executor());
        start(&exits, &executor, &mut Command::new("true")).await.unwrap();
        exits.forget(&executor);
        assert!(lock(&exits.0).is_empty());
        assert!(exits.exited(&executor).now_or_never().is_none(), "nothing is known of it");
    }

    #[tokio::test]
    async fn exit_of_an_adopted_agent_is_level_triggered() {
        let (exits, executor) = (Exits::default(), executor());
        let (sender, exit) = oneshot::channel::<()>();
        exits.adopt(&executor, async move { exit.await.unwrap_or_default() });
        exits.adopt(&executor, std::future::ready(()));
        exits.forget(&executor);
        tokio::task::yield_now().await;
        assert!(exits.exited(&executor).now_or_never().is_none(), "it runs, and is adopted once");
        drop(sender);
        exits.exited(&executor).await;
        exits.exited(&executor).await;
        exits.forget(&executor);
        assert!(lock(&exits.0).is_empty());
    }
}
