//! The last steps of a message that may come in: its envelope, the looks that others take
//! at it, and the commit.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::mail::header::Header;
use crate::mail::text::printable;
use crate::mail::{
    Body, Envelope, Hold, Mailing, Origin, Past, PastEvent, QueueId, Recipient, RecipientStatus,
    State,
};
use crate::smtp::Reply;
use crate::spool::Content;

use super::connection::Connection;
use super::incoming::{Arrived, cannot_store};
use super::session::no_room;
use super::transaction::Transaction;
use super::{Candidate, Verdict, count};

/// What a content check may take.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);
/// What of a message a content check sees.
const CHECKED_OCTETS: usize = 256 * 1024;

impl Connection {
    /// Makes an envelope of what came, and stores both; durable when this returns Ok.
    pub(super) async fn accept(&self, arrived: Arrived) -> Result<QueueId, Reply> {
        let Some(transaction) = self.session.transaction() else {
            return Err(no_room());
        };
        let (mut envelope, header, content) = self.envelope(transaction, arrived);
        let (content, hold) = self.check_content(&envelope, &header, content).await?;
        // Counted last: what a content check refused was never part of a mailing.
        let assignment = (self.shared.hooks.assign)(&Candidate {
            from: &envelope.from,
            header: &header,
            relay: &envelope.relay,
            reverse_path: &envelope.reverse_path,
            recipients: &envelope.recipients,
            at: envelope.accepted,
        });
        envelope.mailing = assignment.mailing;
        if let Some(hold) = assignment.hold.or(hold) {
            // Once it is released its state tells of no hold any more.
            envelope.remember(Past {
                at: hold.since,
                event: PastEvent::Held,
                recipient: None,
                said: None,
                note: format!("{} by {} {}", hold.reason.name(), hold.by, hold.note),
                rule: None,
            });
            envelope.state = State::Held(hold);
        }
        let stored = envelope.clone();
        if let Err(error) = self.shared.spool.commit(envelope, content).await {
            (self.shared.hooks.take_back)(&stored.from, &stored.mailing);
            return Err(cannot_store(&error));
        }
        count(&self.shared.counters.accepted);
        info!(
            queue_id = %stored.id,
            client = %self.client,
            login = stored.login,
            from = shown(&stored.from),
            reverse_path = shown(&stored.reverse_path),
            relay = stored.relay,
            rule = %stored.rule,
            size = stored.size_bytes,
            recipients = stored.recipients.len(),
            held = matches!(stored.state, State::Held(_)),
            "accepted"
        );
        (self.shared.hooks.accepted)(&stored, &header);
        Ok(stored.id)
    }

    fn envelope(&self, transaction: &Transaction, arrived: Arrived) -> (Envelope, Header, Content) {
        let mail = &transaction.mail;
        let eight_bits = arrived.has_eight_bits || mail.body == Some(Body::EightBitMime);
        let recipients = transaction.recipients.iter().map(|it| Recipient {
            path: it.forward_path.clone(),
            notify: it.notify,
            orcpt: it.orcpt.clone(),
            status: RecipientStatus::Waiting,
            last: None,
        });
        let envelope = Envelope {
            id: arrived.id,
            origin: Origin::Submission,
            accepted: self.shared.clock.now(),
            reverse_path: mail.reverse_path.clone(),
            from: arrived.admitted.from,
            rule: arrived.admitted.route.rule,
            relay: arrived.admitted.route.relay,
            mailing: Mailing {
                key: String::new(),
                label: String::new(),
            },
            login: self.session.login().map(str::to_owned),
            client: self.client.to_string(),
            message_id: arrived.message_id,
            body: if eight_bits {
                Body::EightBitMime
            } else {
                Body::SevenBit
            },
            smtputf8: mail.smtputf8,
            ret: mail.ret,
            envid: mail.envid.clone(),
            size_bytes: arrived.content.len(),
            wire_bytes: arrived.wire_bytes,
            recipients: recipients.collect(),
            state: State::Waiting { not_before: None },
            attempts: 0,
            first_failure: None,
            warned: false,
            past: Vec::new(),
        };
        (envelope, arrived.header, arrived.content)
    }

    /// Has the content looked at; a check that takes too long has nothing to say.
    async fn check_content(
        &self,
        envelope: &Envelope,
        header: &Header,
        content: Content,
    ) -> Result<(Content, Option<Hold>), Reply> {
        let check = self.shared.hooks.content_check.clone();
        let Some(check) = check.filter(|_| self.live.config.hints.judges_content()) else {
            return Ok((content, None));
        };
        let deadline = Instant::now() + CHECK_PATIENCE;
        let permit = timeout_at(deadline, self.shared.checks.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            warn!(queue_id = %envelope.id, "too many content checks at once; the message passes");
            return Ok((content, None));
        };
        let read = tokio::task::spawn_blocking(move || {
            let octets = content.peek(0, CHECKED_OCTETS);
            (content, octets)
        });
        let Ok((content, octets)) = read.await else {
            return Err(no_room());
        };
        let octets = octets.map_err(|error| cannot_store(&error))?;
        let header = header.clone();
        let looked = tokio::task::spawn_blocking(move || {
            // Kept for as long as the check takes, even when nobody waits for it any more.
            let _permit = permit;
            check(&header, &octets)
        });
        match timeout_at(deadline, looked).await {
            Ok(Ok(Verdict::Pass)) => Ok((content, None)),
            Ok(Ok(Verdict::Hold(hold))) => Ok((content, Some(hold))),
            Ok(Ok(Verdict::Reject(why))) => {
                Err(Reply::enhanced(550, 7, 1, printable(why.as_bytes(), 400)))
            }
            Ok(Err(_)) | Err(_) => {
                warn!(queue_id = %envelope.id, "the content check took too long or failed; the message passes");
                Ok((content, None))
            }
        }
    }

    /// Counts and logs a message that is not taken.
    pub(super) fn log_refusal(&self, reply: &Reply) {
        count(&self.shared.counters.refused);
        let reverse_path = self
            .session
            .transaction()
            .map(|it| shown(&it.mail.reverse_path));
        info!(
            client = %self.client,
            login = self.session.login(),
            reverse_path,
            code = reply.code,
            reply = reply.text(),
            "refused"
        );
    }
}

/// An address for the log: its letters are the client's choice.
fn shown(address: &impl std::fmt::Display) -> String {
    printable(address.to_string().as_bytes(), 320)
}
