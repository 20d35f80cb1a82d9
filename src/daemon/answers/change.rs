//! `hold`, `release`, `retry`, `reroute`, `delete` and `fail`: previewed, and done.

use std::collections::BTreeSet;

use crate::control::protocol::{
    Action, ChangeReport, ChangeRequest, FailureKind, MessageState, RelayState,
};
use crate::daemon::{change, desk};
use crate::mail::{Envelope, QueueId};

use super::chosen::Pages;
use super::{Answers, Trouble, bad_request, not_found, parse_id};

impl Answers {
    pub(super) async fn change(
        &self,
        request: ChangeRequest,
        by: &str,
    ) -> Result<ChangeReport, Trouble> {
        if request.filter.is_empty() && !request.all {
            return Err(bad_request(
                "name ids or a filter; to mean every waiting message, say --all",
            ));
        }
        if let Action::Reroute { to } = &request.action {
            self.known_relay(to)?;
        }
        // What is accepted from now on is not meant: without a bound, a busy flow would
        // keep a change running for ever.
        let up_to = match &request.up_to {
            Some(id) => parse_id(id)?,
            None => QueueId::MAX,
        };
        let mut tally = Tally::default();
        let now = self.clock.now();
        let mut pages = Pages::new(self, &request.filter, QueueId::MIN);
        pages.up_to = up_to;
        while let Some(page) = pages.next().await? {
            let mut ids = Vec::new();
            for (envelope, situation) in &page {
                let held = situation.state == MessageState::Held;
                if situation.state == MessageState::Sending {
                    tally.changed.sending += 1;
                } else if change::changed(envelope, &request.action, by, "", now).is_none() {
                    match (&request.action, held) {
                        (Action::Retry, true) => tally.held += 1,
                        (Action::Retry, false) => {
                            tally.goes(envelope, &request.action, held);
                            tally.changed.unchanged += 1;
                        }
                        _ => tally.changed.unchanged += 1,
                    }
                } else {
                    tally.count(envelope);
                    tally.goes(envelope, &request.action, held);
                    ids.push(envelope.id);
                }
            }
            if request.dry_run || ids.is_empty() {
                continue;
            }
            let note = request.note.clone().unwrap_or_default();
            let changed = self
                .desk
                .change(ids, request.action.clone(), by.to_owned(), note)
                .await?
                .map_err(|words| Trouble::Failure(FailureKind::Failed, words))?;
            tally.changed.changed += changed.changed;
            tally.changed.sending += changed.sending;
            tally.changed.unchanged += changed.unchanged;
        }
        let found = tally.messages + tally.changed.sending + tally.changed.unchanged + tally.held;
        if !request.filter.ids.is_empty() && found == 0 {
            return Err(not_found("no such message waits here".to_owned()));
        }
        if !tally.goes_by.is_empty() {
            let relays = self.desk.relays(None).await?;
            let paused = relays
                .into_iter()
                .filter(|it| it.state == RelayState::Paused && tally.goes_by.contains(&it.relay));
            tally.paused = paused.map(|it| it.relay).collect();
        }
        Ok(tally.report(&request))
    }
}

/// What a change found, and what it did.
#[derive(Default)]
struct Tally {
    messages: u64,
    recipients: u64,
    size_bytes: u64,
    first_ids: Vec<String>,
    senders: std::collections::HashMap<String, u64>,
    last: Option<QueueId>,
    changed: desk::Changed,
    /// Held before and after.
    held: u64,
    /// The relays that should send something now.
    goes_by: BTreeSet<String>,
    /// Those of them that do not.
    paused: Vec<String>,
}

/// Senders that are counted apart; the rest only in the sums.
const SENDERS_COUNTED: usize = 1_000;

impl Tally {
    fn count(&mut self, envelope: &Envelope) {
        self.messages += 1;
        self.recipients += envelope.waiting().count() as u64;
        self.size_bytes += envelope.size_bytes;
        if self.first_ids.len() < 5 {
            self.first_ids.push(envelope.id.to_string());
        }
        let sender = envelope.from.to_string();
        if self.senders.len() < SENDERS_COUNTED || self.senders.contains_key(&sender) {
            *self.senders.entry(sender).or_default() += 1;
        }
        self.last = self.last.max(Some(envelope.id));
    }

    /// What a change is to set in motion, and by which relay.
    fn goes(&mut self, envelope: &Envelope, action: &Action, held: bool) {
        let relay = match action {
            Action::Release | Action::Retry => &envelope.relay,
            Action::Reroute { .. } if held => {
                self.held += 1;
                return;
            }
            Action::Reroute { to } => to,
            Action::Hold | Action::Delete | Action::Fail => return,
        };
        if !self.goes_by.contains(relay) {
            self.goes_by.insert(relay.clone());
        }
    }

    fn report(self, request: &ChangeRequest) -> ChangeReport {
        let mut senders: Vec<_> = self.senders.into_iter().collect();
        senders.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let done = !request.dry_run;
        ChangeReport {
            action: request.action.verb().into(),
            dry_run: request.dry_run,
            messages: if done {
                self.changed.changed
            } else {
                self.messages
            },
            recipients: self.recipients,
            size_bytes: self.size_bytes,
            sending: self.changed.sending,
            unchanged: self.changed.unchanged,
            held: self.held,
            paused: self.paused,
            first_ids: self.first_ids,
            senders: senders.into_iter().take(3).map(|it| it.0).collect(),
            up_to: self.last.map(|it| it.to_string()),
        }
    }
}
