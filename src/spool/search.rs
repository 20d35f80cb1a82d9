//! Questions to the index, and walks through all of it.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::mail::{Envelope, HoldReason, QueueId};

use super::Spool;
use super::engine::Engine;
use super::error::SpoolError;
use super::index::{Index, Wanted};
use super::query::Page;
use super::rebuild::index_error;

/// Envelopes that one step of a walk reads: some ten milliseconds, like the entries of the
/// index that a step looks at. Tests step often.
const STEP_ENVELOPES: usize = if cfg!(test) { 2 } else { 1_000 };

impl Spool {
    /// Asks the index, once everything that was answered before is in it.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Index) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        self.until_complete().await?;
        let engine = self.0.clone();
        let answer = self
            .0
            .runtime
            .spawn_blocking(move || engine.answer(question));
        answer.await.unwrap_or(Err(SpoolError::Closed))
    }

    /// Walks through the index after a message, step by step on the thread for that, until
    /// a page is full or nothing is left.
    pub(super) async fn walk(
        &self,
        after: QueueId,
        limit: usize,
        step: impl Fn(&Engine, &Index, QueueId, usize) -> Result<Page, SpoolError>
        + Clone
        + Send
        + 'static,
    ) -> Result<Page, SpoolError> {
        let mut whole = Page {
            next: Some(after),
            ..Page::default()
        };
        while let Some(after) = whole.next
            && whole.messages.len() < limit
        {
            let left = limit - whole.messages.len();
            let page = self.step(after, left, step.clone()).await?;
            whole.messages.extend(page.messages);
            whole.unreadable.extend(page.unreadable);
            whole.next = page.next;
        }
        Ok(whole)
    }

    /// One step of a walk.
    pub(super) async fn step(
        &self,
        after: QueueId,
        limit: usize,
        step: impl Fn(&Engine, &Index, QueueId, usize) -> Result<Page, SpoolError> + Send + 'static,
    ) -> Result<Page, SpoolError> {
        self.until_complete().await?;
        let engine = self.0.clone();
        let page = self.0.runtime.spawn_blocking(move || {
            let walking = engine.clone();
            let step = move || walking.answer(|index| step(&walking, index, after, limit));
            let page = engine.walker.run(step);
            page.unwrap_or(Err(SpoolError::Closed))
        });
        page.await.unwrap_or(Err(SpoolError::Closed))
    }
}

impl Engine {
    /// What the index says to a question.
    fn answer<T>(
        self: &Arc<Self>,
        question: impl FnOnce(&Index) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        let index = self
            .index()
            .ok_or_else(|| SpoolError::Index("it is being rebuilt".into()))?;
        // sled panics over some damage of its files.
        let answer = catch_unwind(AssertUnwindSafe(|| question(&index)));
        let answer = answer.unwrap_or_else(|_| Err(SpoolError::Index("sled panicked".into())));
        if let Err(SpoolError::Index(error)) = &answer {
            self.doubt_index(&index, error);
        }
        answer
    }

    /// One step of a walk: reads the envelopes that the index thinks are meant, so many at
    /// most, and keeps those that are.
    pub fn search(
        &self,
        index: &Index,
        wanted: &Wanted<'_>,
        after: QueueId,
        limit: usize,
        matches: impl Fn(&Envelope) -> bool,
    ) -> Result<Page, SpoolError> {
        let mut page = Page::default();
        let (mut read, mut last) = (0, after);
        let mut failed = None;
        let mut unread = Vec::new();
        let searched = index.candidates(wanted, after, |id, entry| {
            if page.messages.len() >= limit || read >= STEP_ENVELOPES {
                page.next = Some(last);
                return ControlFlow::Break(());
            }
            (read, last) = (read + 1, id);
            match self.read_envelope(id) {
                Ok(Some(envelope)) if matches(&envelope) => page.messages.push(envelope),
                Ok(_) => {}
                // One message that cannot be shown must not hide the others.
                Err(error) if error.is_about_one() => {
                    page.unreadable.extend(index.unreadable(id, &entry));
                    unread.push((id, error));
                }
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        let left_off = searched.map_err(index_error)?;
        for (id, error) in unread {
            self.set_aside(id, &error)?;
        }
        page.next = page.next.or(left_off);
        match failed {
            Some(error) => Err(error),
            None => Ok(page),
        }
    }

    /// Holds a message of which nothing can be read, as far as the index is concerned: there
    /// is no envelope that could be written. A rebuild knows it by its damage alone.
    pub fn set_aside(&self, id: QueueId, error: &SpoolError) -> Result<(), SpoolError> {
        if !error.is_about_one() {
            return Ok(());
        }
        let index = self.index();
        let index = index.ok_or_else(|| SpoolError::Index("it is being rebuilt".into()))?;
        let Some(entry) = index.entry(id).map_err(index_error)? else {
            return Ok(());
        };
        if entry.is_held_for(HoldReason::Damaged) {
            return Ok(());
        }
        tracing::error!(queue_id = %id, %error, "held: its record cannot be read, see corrupt/");
        for place in [entry.envelope, entry.content] {
            if let Err(error) = self.keep_damaged(place) {
                tracing::error!(queue_id = %id, %error, "cannot copy a damaged record");
            }
        }
        index.hold_damaged(id).map_err(index_error)
    }
}
