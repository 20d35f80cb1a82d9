//! What the rest of the daemon asks of the delivery task, which alone decides what leaves.
//!
//! One task owns the schedule, the limit ledgers and the health of the relays; others
//! tell it things and ask it things over one bounded channel. Whoever changes a waiting
//! message does it there, too, so that nobody changes what is just being sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::control::describe::Situation;
use crate::control::protocol::{Action, LimitsReport, MailingReport, RelayStatus};
use crate::mail::{Envelope, QueueId};
use crate::spool::{FlowKey, FlowSummary, Waiting};
use crate::verify::TokenHash;

use super::look::Found;
use super::transaction::Ended;
use super::verifying::{Confirmed, NoTest, Unconfirmed, Verifying};

/// Events that may wait for the delivery task before whoever has one must wait, too.
const EVENTS_AHEAD: usize = 1_024;
/// How long the delivery task may take to answer before it counts as stuck.
const ALIVE_PATIENCE: Duration = Duration::from_secs(10);

/// Something that the delivery task is told or asked.
pub enum Event {
    /// A message is in the spool and may leave.
    Accepted(Waiting),
    /// A transaction ended.
    Ended(Box<Ended>),
    /// The configuration in use is another one.
    Reloaded,
    /// An administrator changes messages.
    Change(Change),
    /// A look found that these are to be held, and why.
    HoldForHint(Vec<(QueueId, String)>),
    /// A look through what waits found these; it goes on when it is told to, and ends when
    /// this is dropped.
    Found(Found, oneshot::Sender<()>),
    /// A look through what waits is over.
    Looked,
    /// Why messages wait, in the order of the question.
    Situations(Vec<Envelope>, oneshot::Sender<Vec<Situation>>),
    /// How the relays are: all of them, or the one with this name.
    Relays(Option<String>, oneshot::Sender<Vec<RelayStatus>>),
    /// What is used and left of the limits: of all relays, or of the one with this name. The
    /// flows are those of the spool: whoever asks reads them, and waits for them.
    Limits(
        Option<String>,
        Vec<FlowSummary>,
        oneshot::Sender<Vec<LimitsReport>>,
    ),
    /// The relays for which something may leave now.
    MayLeave(oneshot::Sender<Vec<String>>),
    /// The mailings among these flows of the spool: of all relays, or of the one with this
    /// name.
    Mailings(
        Option<String>,
        Vec<FlowSummary>,
        oneshot::Sender<Vec<MailingReport>>,
    ),
    /// An administrator pauses a relay.
    Pause {
        /// Its name.
        relay: String,
        /// Who.
        by: String,
        /// Why.
        note: String,
        /// Told when it is done and durable.
        done: oneshot::Sender<()>,
    },
    /// An administrator wants the test message of a relay sent again.
    Verify {
        /// Its name.
        relay: String,
        /// Told what was done about it.
        done: oneshot::Sender<Result<Verifying, NoTest>>,
    },
    /// Somebody shows a token.
    Confirm {
        /// Its hash.
        token: TokenHash,
        /// Who; none: only to be told what the token is for.
        by: Option<String>,
        /// Told what came of it, when it is durable.
        done: oneshot::Sender<Result<Confirmed, Unconfirmed>>,
    },
    /// What a relay had trouble with may be over: it is tried at once, unless an
    /// administrator paused it.
    Mended {
        /// Its name.
        relay: String,
        /// Told when it is done and durable.
        done: oneshot::Sender<()>,
    },
    /// An administrator wants a relay tried at once.
    Resume {
        /// Its name.
        relay: String,
        /// Told when it is done and durable.
        done: oneshot::Sender<()>,
    },
}

/// A change to messages by an administrator.
pub struct Change {
    /// To which.
    pub ids: Vec<QueueId>,
    /// What.
    pub action: Action,
    /// Who.
    pub by: String,
    /// Why.
    pub note: String,
    /// Told what came of it.
    pub done: oneshot::Sender<Result<Changed, String>>,
}

/// What came of a [`Change`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// Messages that are as wanted now and were not before.
    pub changed: u64,
    /// Messages that are just being sent, and were left alone.
    pub sending: u64,
    /// Messages that were as wanted already, or are gone.
    pub unchanged: u64,
}

/// The way to the delivery task; cloned freely.
#[derive(Clone)]
pub struct Desk {
    events: mpsc::Sender<Event>,
    /// Accepted mail that the channel had no room for: each flow and its first message.
    missed: Arc<Mutex<BTreeMap<FlowKey, QueueId>>>,
}

/// The daemon is stopping: the delivery task answers no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("penstockd is stopping")]
pub struct Stopping;

impl Desk {
    /// The desk and what the delivery task reads.
    pub fn new() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(EVENTS_AHEAD);
        (
            Self {
                events: sender,
                missed: Arc::default(),
            },
            receiver,
        )
    }

    /// Tells it something.
    pub async fn tell(&self, event: Event) -> Result<(), Stopping> {
        self.events.send(event).await.map_err(|_| Stopping)
    }

    /// Tells it of an accepted message, without waiting.
    ///
    /// When it is too busy to listen, it looks into the spool for the message later: a
    /// client's 250 never waits for the delivery side.
    pub fn accepted(&self, item: Waiting) {
        if let Err(TrySendError::Full(Event::Accepted(item))) =
            self.events.try_send(Event::Accepted(item))
        {
            let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
            let first = missed.entry(item.flow).or_insert(item.id);
            *first = item.id.min(*first);
        }
    }

    /// The flows that [`accepted`](Self::accepted) could not tell of, each with its
    /// first such message.
    pub fn take_missed(&self) -> BTreeMap<FlowKey, QueueId> {
        std::mem::take(&mut *self.missed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the delivery task still turns.
    pub async fn is_alive(&self) -> bool {
        let asked = self.ask(|answer| Event::Situations(Vec::new(), answer));
        // An answer, not only an end of waiting: a task that is gone refuses at once.
        matches!(tokio::time::timeout(ALIVE_PATIENCE, asked).await, Ok(Ok(_)))
    }

    /// The relays for which something may leave now.
    pub async fn may_leave(&self) -> Result<Vec<String>, Stopping> {
        self.ask(Event::MayLeave).await
    }

    /// The mailings that wait, or ended within the hour, among the flows of the spool.
    pub async fn mailings(
        &self,
        relay: Option<String>,
        flows: Vec<FlowSummary>,
    ) -> Result<Vec<MailingReport>, Stopping> {
        self.ask(|answer| Event::Mailings(relay, flows, answer))
            .await
    }

    /// Asks it something.
    async fn ask<T>(&self, event: impl FnOnce(oneshot::Sender<T>) -> Event) -> Result<T, Stopping> {
        let (sender, answer) = oneshot::channel();
        self.tell(event(sender)).await?;
        answer.await.map_err(|_| Stopping)
    }

    /// Why messages wait, in the order of the question.
    pub async fn situations(&self, messages: Vec<Envelope>) -> Result<Vec<Situation>, Stopping> {
        self.ask(|answer| Event::Situations(messages, answer)).await
    }

    /// How the relays are.
    pub async fn relays(&self, relay: Option<String>) -> Result<Vec<RelayStatus>, Stopping> {
        self.ask(|answer| Event::Relays(relay, answer)).await
    }

    /// What is used and left of the relays' limits, with the mailings among these flows.
    pub async fn limits(
        &self,
        relay: Option<String>,
        flows: Vec<FlowSummary>,
    ) -> Result<Vec<LimitsReport>, Stopping> {
        self.ask(|answer| Event::Limits(relay, flows, answer)).await
    }

    /// Pauses a relay until somebody resumes it.
    pub async fn pause(&self, relay: String, by: String, note: String) -> Result<(), Stopping> {
        self.ask(|done| Event::Pause {
            relay,
            by,
            note,
            done,
        })
        .await
    }

    /// Has the test message of a relay sent again.
    pub async fn verify(&self, relay: String) -> Result<Result<Verifying, NoTest>, Stopping> {
        self.ask(|done| Event::Verify { relay, done }).await
    }

    /// Confirms the relay behind a token; without a name, only tells what it is for.
    pub async fn confirm(
        &self,
        token: TokenHash,
        by: Option<String>,
    ) -> Result<Result<Confirmed, Unconfirmed>, Stopping> {
        self.ask(|done| Event::Confirm { token, by, done }).await
    }

    /// Has a paused relay tried at once.
    pub async fn resume(&self, relay: String) -> Result<(), Stopping> {
        self.ask(|done| Event::Resume { relay, done }).await
    }

    /// Has a relay that had trouble tried at once.
    pub async fn mended(&self, relay: String) -> Result<(), Stopping> {
        self.ask(|done| Event::Mended { relay, done }).await
    }

    /// Changes messages.
    pub async fn change(
        &self,
        ids: Vec<QueueId>,
        action: Action,
        by: String,
        note: String,
    ) -> Result<Result<Changed, String>, Stopping> {
        self.ask(|done| {
            Event::Change(Change {
                ids,
                action,
                by,
                note,
                done,
            })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_delivery_task_that_answers_is_alive() {
        let (desk, mut events) = Desk::new();
        let turns = async {
            match events.recv().await {
                Some(Event::Situations(_, answer)) => answer.send(Vec::new()).unwrap(),
                _ => panic!("asked something else"),
            }
        };
        assert!(tokio::join!(desk.is_alive(), turns).0);
        assert!(!desk.is_alive().await, "it hangs");
        drop(events);
        assert!(!desk.is_alive().await, "it is gone");
    }
}
