//! The messages that a filter chooses.

use crate::control::describe::{self, Situation};
use crate::control::protocol::{Filter, MessageState};
use crate::mail::{Envelope, QueueId};
use crate::spool;

use super::{Answers, Trouble, parse_id};

/// Messages that are read from the spool together.
pub const PAGE: usize = 256;

/// The messages that a filter chooses, page by page, each with why it waits.
pub struct Pages<'a> {
    answers: &'a Answers,
    filter: &'a Filter,
    coarse: spool::Filter,
    after: QueueId,
    pub up_to: QueueId,
    ended: bool,
}

impl<'a> Pages<'a> {
    pub fn new(answers: &'a Answers, filter: &'a Filter, after: QueueId) -> Self {
        // The spool's index narrows by relay and state; the rest is looked at here.
        let plain = |text: &Option<String>| {
            text.clone()
                .filter(|it| !it.contains('*') && !it.starts_with('@'))
        };
        let coarse = spool::Filter {
            relay: plain(&filter.relay)
                .filter(|it| answers.live.borrow().config.relays.contains_key(it)),
            state: match filter.state {
                Some(MessageState::Held) => Some(spool::StateFilter::Held),
                _ => None,
            },
            from: plain(&filter.from).and_then(|it| it.parse().ok()),
            ..spool::Filter::default()
        };
        Self {
            answers,
            filter,
            coarse,
            after,
            up_to: QueueId::MAX,
            ended: false,
        }
    }

    /// The next page; it may be empty although more follow. None: that was all.
    pub async fn next(&mut self) -> Result<Option<Vec<(Envelope, Situation)>>, Trouble> {
        if self.ended {
            return Ok(None);
        }
        let messages = if self.filter.ids.is_empty() {
            let page = self
                .answers
                .spool
                .list(&self.coarse, self.after, PAGE)
                .await?;
            match page.next {
                Some(next) if next < self.up_to => self.after = next,
                _ => self.ended = true,
            }
            page.messages
        } else {
            self.ended = true;
            let mut named = Vec::new();
            for id in &self.filter.ids {
                named.extend(self.answers.spool.envelope(parse_id(id)?).await?);
            }
            named.sort_by_key(|it| it.id);
            named.dedup_by_key(|it| it.id);
            named
        };
        let messages: Vec<_> = messages
            .into_iter()
            .filter(|it| it.id <= self.up_to)
            .collect();
        let situations = self.answers.desk.situations(messages.clone()).await?;
        let now = self.answers.clock.now();
        Ok(Some(
            messages
                .into_iter()
                .zip(situations)
                .filter(|(envelope, situation)| {
                    describe::chooses(self.filter, envelope, situation.state, now)
                })
                .collect(),
        ))
    }
}
