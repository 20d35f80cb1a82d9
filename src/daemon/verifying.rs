//! Relays that must be verified: sending their test messages, learning how those ended,
//! taking confirmations.
//!
//! The delivery task does it, because it alone decides what leaves: a relay that nobody
//! has confirmed is open to its test message and to nothing else.

mod answer;
mod standing;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::config::Relay;
use crate::control::protocol::Action;
use crate::mail::{Origin, QueueId, Recipient, RecipientStatus, ReversePath, State};
use crate::outcome::Cause;
use crate::relay::{Said, Transcript};
use crate::spool::{FlowKey, Lookup, SpoolError};
use crate::verify::{self, Conversation, Found, Letter, NotYet, Outcome, Side, Token, TokenHash};

use super::delivery::Delivery;
use super::own_mail::OwnMail;
use super::transaction;

pub use answer::{Confirmed, NoTest, Unconfirmed, Verifying};
pub(super) use standing::{add_verification, dialogue, unverified};

/// The kind of the spool's notes about a relay's verification.
pub(super) const VERIFICATION: &str = "verification";
/// Who withdraws a test message that must not leave any more.
const OURSELVES: &str = "penstock";

impl Delivery {
    /// Looks at every relay as it is configured now: those that nobody confirmed are
    /// closed to all but their test message, and get one if none is on its way.
    pub(super) async fn verify_relays(&mut self) {
        let live = self.office.live.borrow().clone();
        let wanted = |name: &String| live.config.relays.get(name).is_some_and(|it| it.verify);
        let names = self.relays.keys().filter(|it| !wanted(it));
        for name in names.cloned().collect::<Vec<_>>() {
            if let Some(id) = self.book(&name).verification.unwanted() {
                self.withdraw(id, "the relay needs no verification any more")
                    .await;
                self.keep_or_warn(&name).await;
            }
        }
        for relay in live.config.relays.values() {
            if relay.verify {
                self.bind(relay).await;
            }
            self.open_or_close(relay);
            if !relay.verify {
                continue;
            }
            let waits = self.rebuilding || self.waiting_test(&relay.name).await.is_some();
            // What cannot be asked now counts as waiting, too.
            let waits = waits || self.recall_test(&relay.name).await.is_err();
            let now = self.office.clock.now();
            if self.book(&relay.name).verification.wants_test(waits, now)
                && let Err(trouble) = self.send_test(relay).await
            {
                warn!(relay = relay.name, %trouble, "cannot send the test message");
            }
        }
    }

    /// Has the release let through what may leave to a relay.
    pub(super) fn open_or_close(&mut self, relay: &Relay) {
        let sender = relay.sender.as_ref();
        let only = sender
            .filter(|_| !self.office.confirmations.is_active(relay))
            .map(|sender| FlowKey {
                relay: relay.name.clone(),
                user: sender.folded(),
                mailing: verify::MAILING.to_owned(),
            });
        self.release.restrict(&relay.name, only);
    }

    /// Takes note of the servers, user name and sender that a relay has now; what was
    /// proven about others is given up, and a test message for them is withdrawn.
    async fn bind(&mut self, relay: &Relay) {
        let name = &relay.name;
        let (changed, stale) = self.book(name).verification.bind(relay);
        if !changed {
            return;
        }
        self.confirmations_changed(name);
        if let Some(why) = self.book(name).verification.lost() {
            warn!(relay = name, why, "the relay must be confirmed again");
        }
        self.keep_or_warn(name).await;
        if let Some(id) = stale {
            self.withdraw(id, "the relay was changed").await;
        }
    }

    /// Takes back a test message that has not left.
    pub(super) async fn withdraw(&mut self, id: QueueId, why: &'static str) {
        let gone = self.change_all(vec![id], &Action::Delete, OURSELVES, why);
        match gone.await {
            Ok(_) => {}
            Err(trouble) if trouble.is_of_index() => self.later.withdrawn.push((id, why)),
            Err(trouble) => {
                warn!(queue_id = %id, %trouble, "cannot withdraw an old test message");
            }
        }
    }

    async fn keep_or_warn(&mut self, relay: &str) {
        if let Err(trouble) = self.keep(relay).await {
            warn!(relay, %trouble, "cannot remember how the relay is");
        }
    }

    fn confirmations_changed(&mut self, relay: &str) {
        let confirmed = self.book(relay).verification.confirmed().cloned();
        self.office.confirmations.set(relay, confirmed);
    }

    async fn keep(&mut self, relay: &str) -> Result<(), SpoolError> {
        let value = self.book(relay).verification.to_value();
        self.spool.note(VERIFICATION, relay, Some(value)).await
    }

    /// The test message that waits for its relay.
    async fn waiting_test(&mut self, relay: &str) -> Option<(QueueId, State)> {
        let id = self.book(relay).verification.test()?.id()?;
        // What cannot be read now is taken to wait: one test message too few is mended
        // by asking for another.
        match self.spool.envelope(id).await {
            Ok(Some(envelope)) if !envelope.is_finished() => Some((id, envelope.state)),
            Ok(_) => None,
            Err(_) => Some((id, State::Waiting { not_before: None })),
        }
    }

    /// A test message may have left just before the daemon was killed: the history of the
    /// spool knows.
    async fn recall_test(&mut self, relay: &str) -> Result<(), SpoolError> {
        let test = self.book(relay).verification.test();
        let open = test.filter(|it| it.outcome == Outcome::Waiting);
        let Some(id) = open.and_then(|it| it.id()) else {
            return Ok(());
        };
        let found = match self.spool.history(&Lookup::Id(id), 1).await {
            Err(trouble) if trouble.is_of_index() => return Err(trouble),
            found => found.unwrap_or_default().pop(),
        };
        let Some(finished) = found else {
            return Ok(());
        };
        let delivered = |it: &Recipient| it.status == RecipientStatus::Delivered;
        if finished.envelope.recipients.iter().any(delivered) {
            let sent = Outcome::Sent { at: finished.at };
            self.book(relay).verification.ended(id, sent);
            self.keep_or_warn(relay).await;
        }
        Ok(())
    }

    /// Writes a test message and hands it in.
    async fn send_test(&mut self, relay: &Relay) -> Result<QueueId, NoTest> {
        let name = relay.name.clone();
        let Some(sender) = relay.sender.clone() else {
            return Err(NoTest::NotWanted(name));
        };
        let office = self.office.clone();
        let trouble = |error: &dyn std::error::Error| NoTest::Trouble(error.to_string());
        let now = office.clock.now();
        let token = Token::random();
        let id = office.spool.next_id();
        // The hash is on the disk before the message is: a link that arrives is known.
        let expires = self
            .book(&name)
            .verification
            .composed(id, token.hash(), now);
        self.keep(&name).await.map_err(|it| trouble(&it))?;
        let live = office.live.borrow().clone();
        let hostname = &live.config.hostname;
        let message_id = format!("{id}@{hostname}");
        let letter = Letter {
            relay,
            hostname,
            base_url: live.config.http.base_url.as_deref(),
            token: &token,
            expires,
            now,
            message_id: &message_id,
        };
        let octets = letter.compose().map_err(|it| trouble(&it))?;
        let mail = OwnMail {
            id,
            origin: Origin::Verification,
            // Relays refuse a null reverse-path from accounts that may use one address
            // only; nobody is told of a failure all the same.
            reverse_path: ReversePath::Mailbox(sender.clone()),
            from: sender.clone(),
            to: sender.clone(),
            relay: name.clone(),
            mailing: verify::MAILING,
            message_id,
        };
        let envelope = office.hand_in(mail, &octets).await;
        self.waits_again(&envelope.map_err(|it| trouble(&it))?);
        info!(queue_id = %id, relay = name, to = %sender, "sending the test message of the relay");
        Ok(id)
    }

    /// An administrator wants the test message sent again.
    pub(super) async fn verify(&mut self, name: &str) -> Result<Verifying, NoTest> {
        let live = self.office.live.borrow().clone();
        let relay = live.config.relays.get(name).filter(|it| it.verify);
        let not_wanted = || NoTest::NotWanted(name.to_owned());
        let relay = relay.ok_or_else(not_wanted)?;
        let sender = relay.sender.as_ref().ok_or_else(not_wanted)?.to_string();
        self.bind(relay).await;
        self.open_or_close(relay);
        let now = self.office.clock.now();
        let book = self.book(name);
        match book.verification.may_resend(now) {
            Ok(()) => {}
            Err(NotYet::Confirmed) => {
                let (at, by) = book.verification.confirmation().unwrap_or((now, ""));
                return Err(NoTest::Confirmed {
                    relay: name.to_owned(),
                    at,
                    by: by.to_owned(),
                });
            }
            Err(NotYet::Pause { since, left }) => {
                return Err(NoTest::Pause {
                    sender,
                    since,
                    left,
                });
            }
        }
        if let Some(pause) = book.health.pause() {
            if pause.cause == Cause::Administrator {
                return Err(NoTest::Paused {
                    relay: name.to_owned(),
                    by: pause.by.clone(),
                });
            }
            let change = book.health.resume(now);
            self.health_changed(name, change).await;
        }
        let id = self.hurry_or_send(relay, now).await?;
        let (tell, ended) = oneshot::channel();
        let watchers = &mut self.book(name).watchers;
        watchers.retain(|it| !it.is_closed());
        watchers.push(tell);
        Ok(Verifying { sender, id, ended })
    }

    /// Has the test message that waits tried at once, or writes one.
    async fn hurry_or_send(&mut self, relay: &Relay, now: Timestamp) -> Result<QueueId, NoTest> {
        let Some((id, state)) = self.waiting_test(&relay.name).await else {
            return self.send_test(relay).await;
        };
        let test = self.book(&relay.name).verification.test();
        let (action, note) = if test.is_some_and(|it| it.expires <= now) {
            (Action::Delete, "its token has expired")
        } else if matches!(state, State::Held(_)) {
            (Action::Release, "penstock relay verify")
        } else {
            (Action::Retry, "penstock relay verify")
        };
        let changed = self.change_all(vec![id], &action, OURSELVES, note).await;
        changed.map_err(|error| NoTest::Trouble(error.to_string()))?;
        match action {
            Action::Delete => self.send_test(relay).await,
            _ => Ok(id),
        }
    }

    /// A test message was tried.
    pub(super) async fn test_ended(&mut self, ended: &transaction::Outcome) {
        let envelope = &ended.settlement.envelope;
        let name = envelope.relay.clone();
        let Some(outcome) = outcome(ended) else {
            return;
        };
        let book = self.book(&name);
        book.verification.ended(envelope.id, outcome.clone());
        self.keep_or_warn(&name).await;
        // Said only when it is on the disk: whoever heard it can rely on it.
        match &outcome {
            Outcome::Failed {
                words,
                remedy,
                stage,
                is_final,
                ..
            } => {
                warn!(queue_id = %envelope.id, relay = name, stage, words, remedy, is_final, "the test message of the relay was not taken");
            }
            Outcome::Sent { .. } | Outcome::Waiting => {
                info!(queue_id = %envelope.id, relay = name, "the test message of the relay left; it waits to be confirmed");
            }
        }
        for watcher in self.book(&name).watchers.drain(..) {
            // Whoever waited for it may have gone.
            watcher.send(outcome.clone()).ok();
        }
    }

    /// Somebody shows a token; without a name only to learn what it is for.
    pub(super) async fn confirm(
        &mut self,
        token: &TokenHash,
        by: Option<String>,
    ) -> Result<Confirmed, Unconfirmed> {
        let now = self.office.clock.now();
        let live = self.office.live.borrow().clone();
        let known = |(name, book): (&String, &super::delivery::RelayBook)| {
            book.verification.find(token, now).map(|_| name.clone())
        };
        let name = self.relays.iter().find_map(known);
        let name = name.ok_or(Unconfirmed::Unknown)?;
        let relay = live.config.relays.get(&name).filter(|it| it.verify);
        let relay = relay.ok_or_else(|| Unconfirmed::NotWanted(name.clone()))?;
        // It may have been changed a moment ago.
        self.bind(relay).await;
        match self.book(&name).verification.find(token, now) {
            Some(Found::Open) => {}
            Some(Found::Used) => return Err(Unconfirmed::Used(name)),
            Some(Found::Expired) => return Err(Unconfirmed::Expired(name)),
            Some(Found::Outdated) => return Err(Unconfirmed::Outdated(name)),
            None => return Err(Unconfirmed::Unknown),
        }
        let mut confirmed = Confirmed {
            relay: name.clone(),
            servers: relay.servers.iter().map(ToString::to_string).collect(),
            sender: relay
                .sender
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            at: None,
        };
        let Some(by) = by else {
            return Ok(confirmed);
        };
        let before = self.book(&name).verification.clone();
        self.book(&name).verification.confirm(&by, now);
        if let Err(trouble) = self.keep(&name).await {
            self.book(&name).verification = before;
            return Err(Unconfirmed::Trouble(format!(
                "the confirmation cannot be written down, so it does not count: {trouble}"
            )));
        }
        self.confirmations_changed(&name);
        self.open_or_close(relay);
        info!(relay = name, by, "relay confirmed: it is active");
        self.sort_all_flows().await;
        confirmed.at = Some(now);
        Ok(confirmed)
    }
}

/// What became of a test message; none when nothing was tried.
fn outcome(ended: &transaction::Outcome) -> Option<Outcome> {
    let settlement = &ended.settlement;
    if settlement.delivered {
        return Some(Outcome::Sent { at: ended.at });
    }
    let envelope = &settlement.envelope;
    let said = envelope.recipients.iter().find_map(|it| it.last.as_ref())?;
    if settlement.trouble.is_none() && settlement.findings.is_empty() {
        return None;
    }
    let remedy = settlement.findings.first().map(|it| it.1.remedy.clone());
    Some(Outcome::Failed {
        at: ended.at,
        stage: said.stage.name().to_owned(),
        server: said.server.clone(),
        words: crate::control::describe::one_line(said),
        remedy: remedy.unwrap_or_default(),
        is_final: envelope.is_finished(),
        conversation: ended.conversation.as_ref().map(kept).unwrap_or_default(),
    })
}

/// A dialogue as it is kept.
fn kept(transcript: &Transcript) -> Conversation {
    Conversation::of(transcript.lines().iter().map(|(said, line)| {
        let side = match said {
            Said::Ours => Side::Ours,
            Said::Theirs => Side::Theirs,
            Said::Note => Side::Note,
        };
        (side, line.clone())
    }))
}
