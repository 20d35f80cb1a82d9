//! Starting tasks and stopping them in order.
//!
//! Stopping has three steps, each of which waits for the one before: nothing new comes
//! in, what is on its way out finishes, the rest closes. A program that is killed at any
//! point of this must be equally safe; stopping in order only spares the peers a retry.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

/// How far stopping has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Mail comes in and goes out.
    Running,
    /// Listeners are closed, idle clients are told 421, nothing new leaves.
    Draining,
    /// Only what waits for the reply to a final dot goes on.
    RepliesOnly,
    /// Whatever still runs is cut off.
    Stopped,
}

/// Starts tasks and knows when they have ended.
///
/// The tasks of one half of the program share one `Lifecycle`, so that stopping can wait
/// for that half alone.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    tasks: TaskTracker,
    draining: CancellationToken,
    /// The first task that ended although nobody asked it to, and how.
    failure: watch::Sender<Option<String>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Running),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            failure: watch::Sender::new(None),
        }
    }
}

/// Tells that a task which the program cannot do without is gone.
#[derive(Clone)]
struct Vital {
    name: String,
    failure: watch::Sender<Option<String>>,
}

impl Vital {
    fn fail(&self, how: &str) {
        let words = format!("{} {how}", self.name);
        error!("{words}, and nobody asked it to");
        self.failure
            .send_if_modified(|it| it.is_none() && it.replace(words).is_none());
    }
}

/// Owned by a task, and so dropped with whatever the task dies of: does this if that is a
/// panic.
struct OnPanic<P: FnOnce()>(Option<P>);

impl<P: FnOnce()> Drop for OnPanic<P> {
    fn drop(&mut self) {
        if let Some(panicked) = self.0.take().filter(|_| std::thread::panicking()) {
            panicked();
        }
    }
}

impl Lifecycle {
    /// Starts a task that stopping waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Starts a task that stopping waits for, and does something if it panics.
    pub fn spawn_or<F, P>(&self, task: F, panicked: P)
    where
        F: Future<Output = ()> + Send + 'static,
        P: FnOnce() + Send + 'static,
    {
        let on_panic = OnPanic(Some(panicked));
        self.spawn(async move {
            let _on_panic = on_panic;
            task.await;
        });
    }

    /// Starts a task that the program cannot do without and that stopping waits for.
    ///
    /// When it panics, or ends otherwise than with `Ok` because it was asked to,
    /// [`failed`](Self::failed) tells: a daemon that lost a part must not look alive.
    pub fn spawn_vital<F>(&self, name: impl Into<String>, task: F)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let vital = Vital {
            name: name.into(),
            failure: self.failure.clone(),
        };
        let panicked = vital.clone();
        let watched = async move {
            if let Err(how) = task.await {
                vital.fail(&how);
            }
        };
        self.spawn_or(watched, move || panicked.fail("panicked"));
    }

    /// Resolves when a vital task ended unasked; which, and how.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        // The sender lives in self: the channel cannot close while we wait.
        let words = failure.wait_for(Option::is_some).await;
        let words = words.ok().and_then(|it| it.clone());
        words.unwrap_or_default()
    }

    /// What to watch to learn that it is time to stop.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether stopping has begun.
    pub fn is_stopping(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining
    }

    /// Cancelled when stopping begins: nothing new is started any more.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Resolves when stopping has come to `phase` or further.
    pub async fn reached(&self, phase: Phase) {
        let mut now = self.phase.subscribe();
        // The sender lives in self: the channel cannot close while we wait.
        let _ = now.wait_for(|it| *it >= phase).await;
    }

    /// Asks the tasks to finish, waits `patience`, then cuts off what still runs.
    ///
    /// Returns whether everything ended by itself.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.stop_after_replies(patience, Duration::ZERO).await
    }

    /// The same, but what waits for the reply to a final dot goes on for `replies` longer:
    /// without that reply a message is in doubt, and sent again.
    pub async fn stop_after_replies(&self, patience: Duration, replies: Duration) -> bool {
        self.enter(Phase::Draining);
        self.draining.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout(patience, self.tasks.wait())
            .await
            .is_ok();
        if !ended && !replies.is_zero() {
            self.enter(Phase::RepliesOnly);
            let _ = tokio::time::timeout(replies, self.tasks.wait()).await;
        }
        self.enter(Phase::Stopped);
        if !ended {
            // Tasks look at the phase at every wait: what they were waiting for is over.
            let _ = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await;
        }
        ended
    }
}

impl Lifecycle {
    /// Comes to a phase; never back from a later one.
    fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|it| {
            let earlier = *it < phase;
            *it = (*it).max(phase);
            earlier
        });
    }
}

/// Resolves when a vital task of any of these ended unasked; which, and how.
pub async fn any_failed(all: &[Lifecycle; 3]) -> String {
    let [one, two, three] = all;
    tokio::select! {
        words = one.failed() => words,
        words = two.failed() => words,
        words = three.failed() => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_what_finishes_and_cuts_off_what_does_not() {
        let quick = Lifecycle::default();
        let phase = quick.clone();
        quick.spawn(async move { phase.reached(Phase::Draining).await });
        assert!(quick.stop(Duration::from_secs(10)).await);

        let stubborn = Lifecycle::default();
        let phase = stubborn.clone();
        stubborn.spawn(async move { phase.reached(Phase::Stopped).await });
        assert!(!stubborn.stop(Duration::from_secs(10)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_a_reply_goes_on_when_the_rest_was_cut_off() {
        let lifecycle = Lifecycle::default();
        let (rest, waits) = (lifecycle.clone(), lifecycle.clone());
        let (told, mut cut) = tokio::sync::mpsc::unbounded_channel();
        let also = told.clone();
        lifecycle.spawn(async move {
            rest.reached(Phase::RepliesOnly).await;
            told.send("the rest").ok();
        });
        lifecycle.spawn(async move {
            waits.reached(Phase::Stopped).await;
            also.send("what waited").ok();
        });
        let began = tokio::time::Instant::now();
        let (patience, replies) = (Duration::from_secs(60), Duration::from_secs(600));
        assert!(!lifecycle.stop_after_replies(patience, replies).await);
        assert_eq!(began.elapsed(), patience + replies);
        assert_eq!(cut.recv().await, Some("the rest"));
        assert_eq!(cut.recv().await, Some("what waited"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_vital_task_that_ends_unasked_is_told_of_and_one_that_was_asked_is_not() {
        let lifecycle = Lifecycle::default();
        lifecycle.spawn_vital("the asked one", async { Ok(()) });
        let waits = tokio::time::timeout(Duration::from_secs(60), lifecycle.failed());
        assert!(waits.await.is_err());
        lifecycle.spawn_vital("the delivery task", async { panic!("a mistake of ours") });
        assert_eq!(lifecycle.failed().await, "the delivery task panicked");

        let lifecycle = Lifecycle::default();
        lifecycle.spawn_vital("a listener", async { Err("ended: no socket".into()) });
        assert_eq!(lifecycle.failed().await, "a listener ended: no socket");
    }
}
