//! Looks through what waits, on tasks of their own: in a queue of a million one takes long,
//! and the delivery task waits for none of them.
//!
//! What a look finds is told to the delivery task a few messages at a time, and the look
//! goes on when they were dealt with. It tells only their names: a message may have been
//! sent or changed since it was read, so whoever changes it reads it again.

use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::oneshot;
use tracing::warn;

use crate::mail::{Envelope, QueueId};
use crate::spool::Filter;

use super::delivery::Delivery;
use super::desk::Event;

/// What a look found.
pub enum Found {
    /// Their users have another relay in the directory by now.
    Strays(Vec<QueueId>),
    /// Their senders are to be told that they wait for this relay.
    Overdue(String, Vec<QueueId>),
}

/// What to look for.
pub(super) struct Search {
    /// Among these.
    pub filter: Filter,
    /// After this message.
    pub after: QueueId,
    /// So many are told of at a time.
    pub step: usize,
    /// Which.
    pub keep: Arc<dyn Fn(&Envelope) -> bool + Send + Sync>,
    /// As what they are told of.
    pub found: Box<dyn Fn(Vec<QueueId>) -> Found + Send + Sync>,
    /// Whether that is enough for one look.
    pub is_enough: Box<dyn Fn() -> bool + Send + Sync>,
}

/// A look that was begun.
pub(super) struct Look {
    /// Held by its task.
    running: Weak<()>,
    end: Arc<OnceLock<Option<QueueId>>>,
}

impl Look {
    /// Whether it goes on.
    pub fn is_under_way(&self) -> bool {
        self.running.strong_count() > 0
    }

    /// Where it ended, when all that it found was dealt with: after this message, or
    /// (within that) none when it saw everything.
    pub fn end(&self) -> Option<Option<QueueId>> {
        self.end.get().copied()
    }
}

impl Delivery {
    /// Begins a look.
    pub(super) fn look(&self, search: Search) -> Look {
        let (running, end) = (Arc::new(()), Arc::new(OnceLock::new()));
        let look = Look {
            running: Arc::downgrade(&running),
            end: end.clone(),
        };
        let (spool, desk) = (self.spool.clone(), self.desk.clone());
        let stopping = self.office.lifecycle.draining();
        self.office.lifecycle.spawn(async move {
            let walk = async {
                let mut next = Some(search.after);
                while let Some(after) = next
                    && !(search.is_enough)()
                {
                    let keep = search.keep.clone();
                    let page = spool.look(&search.filter, after, search.step, keep);
                    let page = match page.await {
                        Ok(page) => page,
                        Err(trouble) => {
                            warn!(%trouble, "cannot look through what waits; trying again later");
                            return;
                        }
                    };
                    next = page.next;
                    let ids: Vec<QueueId> = page.messages.iter().map(|it| it.id).collect();
                    if ids.is_empty() {
                        continue;
                    }
                    let (done, handled) = oneshot::channel();
                    let event = Event::Found((search.found)(ids), done);
                    if desk.tell(event).await.is_err() || handled.await.is_err() {
                        return;
                    }
                }
                end.set(next).ok();
            };
            tokio::select! {
                () = walk => {}
                () = stopping.cancelled() => {}
            }
            drop(running);
            // There may be something else to look for.
            desk.tell(Event::Looked).await.ok();
        });
        look
    }

    /// Deals with what a look found; whether that worked.
    pub(super) async fn found(&mut self, found: Found) -> bool {
        match found {
            Found::Strays(ids) => match self.follow(ids).await {
                Ok(()) => true,
                Err(trouble) => {
                    warn!(%trouble, "cannot move waiting mail to its new relay; trying again later");
                    false
                }
            },
            Found::Overdue(relay, ids) => match self.warn_of(&relay, ids).await {
                Ok(()) => true,
                Err(trouble) => {
                    warn!(%trouble, relay, "cannot warn of a delay; trying again later");
                    false
                }
            },
        }
    }
}
