//! `queue`, `show`, `cat` and `trace`: what waits, and what became of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::control::Responder;
use crate::control::describe::{self, Situation};
use crate::control::protocol::{Content, Filter, Item, MessageState, MessageSummary, TraceRequest};
use crate::control::trace::{self, End};
use crate::mail::{Diagnostic, Envelope, HoldReason, QueueId};
use crate::outcome::{Rules, classify_again};
use crate::spool::{Lookup, Unreadable};

use super::chosen::{PAGE, Pages};
use super::{Answers, Trouble, bad_request, not_found, parse_address, parse_id};

/// Octets of one piece of a content; base64 makes 4 KiB of them. Many pieces may wait for
/// a client that has stopped reading.
const PIECE_BYTES: usize = 3 * 1024;

impl Answers {
    pub(super) async fn queue(
        &self,
        filter: &Filter,
        after: Option<String>,
        limit: Option<u64>,
        to: &Responder,
    ) -> Result<(), Trouble> {
        let after = after
            .map(|it| parse_id(&it))
            .transpose()?
            .unwrap_or(QueueId::MIN);
        let mut left = limit.unwrap_or(u64::MAX);
        let mut pages = Pages::new(self, filter, after);
        while left > 0
            && let Some(page) = pages.next().await?
        {
            for (envelope, situation) in
                page.into_iter().take(usize::try_from(left).unwrap_or(PAGE))
            {
                left -= 1;
                to.item(Item::Message(Box::new(describe::summary(
                    &envelope, situation,
                ))))
                .await?;
            }
        }
        for message in &pages.unreadable {
            let summary = unreadable(message);
            to.item(Item::Message(Box::new(summary))).await?;
        }
        Ok(())
    }

    pub(super) async fn show(&self, id: &str, to: &Responder) -> Result<(), Trouble> {
        let (envelope, situation) = self.find(id).await?;
        let rules = self.office.rules.borrow().clone();
        let meaning = |said: &Diagnostic| meaning(&rules, said);
        let detail = describe::detail(&envelope, situation, &meaning);
        to.item(Item::Detail(Box::new(detail))).await?;
        Ok(())
    }

    /// The message and why it waits.
    async fn find(&self, id: &str) -> Result<(Envelope, Situation), Trouble> {
        let id = parse_id(id)?;
        let Some(envelope) = self.spool.envelope(id).await? else {
            return Err(not_found(format!(
                "{id} does not wait here; penstock trace {id} tells what became of it"
            )));
        };
        let situation = self.desk.situations(vec![envelope.clone()]).await?.pop();
        let now = self.clock.now();
        let situation = situation.unwrap_or_else(|| Situation::of(&envelope, now));
        Ok((envelope, situation))
    }

    pub(super) async fn cat(&self, id: &str, to: &Responder) -> Result<(), Trouble> {
        let id = parse_id(id)?;
        let Some(mut content) = self.spool.content(id).await? else {
            return Err(not_found(format!(
                "{id} does not wait here; the content of finished mail is not kept"
            )));
        };
        while let Some(block) = content.next().await? {
            for piece in block.chunks(PIECE_BYTES) {
                let base64 = STANDARD.encode(piece);
                to.item(Item::Content(Content { base64 })).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn trace(
        &self,
        request: &TraceRequest,
        to: &Responder,
    ) -> Result<(), Trouble> {
        let lookup = match (&request.id, &request.address, &request.message_id) {
            (Some(id), None, None) => Lookup::Id(parse_id(id)?),
            (None, Some(address), None) => Lookup::Address(parse_address(address)?),
            (None, None, Some(message_id)) => Lookup::MessageId(message_id.clone()),
            _ => {
                return Err(bad_request(
                    "trace takes one of an id, an address and a Message-ID",
                ));
            }
        };
        let limit = trace::limit(request.limit);
        let finished = self.spool.history(&lookup, limit).await?;
        let waiting = self.spool.find(&lookup, limit).await?;
        let ended = finished.iter().map(|it| {
            (
                &it.envelope,
                Some(End {
                    at: it.at,
                    by: &it.by,
                }),
            )
        });
        let told = ended.chain(waiting.iter().map(|it| (it, None))).collect();
        for event in trace::events(told, limit) {
            to.item(Item::Event(Box::new(event))).await?;
        }
        Ok(())
    }
}

/// What a refusal means, for whoever looks at the message.
fn meaning(rules: &Rules, said: &Diagnostic) -> Option<describe::Meaning> {
    if said.code.is_some_and(|code| (200..300).contains(&code)) {
        return None;
    }
    let finding = classify_again(rules, said);
    Some(describe::Meaning {
        class: finding.class.name().to_owned(),
        remedy: finding.remedy,
    })
}

/// One row of the queue for a message of which nothing else can be read.
fn unreadable(message: &Unreadable) -> MessageSummary {
    MessageSummary {
        id: message.id.to_string(),
        accepted: message.accepted,
        from: message.flow.user.clone(),
        to: String::new(),
        recipients: u64::from(message.recipients),
        size_bytes: message.size_bytes,
        user: None,
        relay: message.flow.relay.clone(),
        mailing: message.flow.mailing.clone(),
        mailing_key: message.flow.mailing.clone(),
        state: MessageState::Held,
        why: HoldReason::Damaged.name().into(),
        why_text: "held: its record on the disk cannot be read; a copy is in corrupt/".into(),
        next: None,
        attempts: 0,
        error: None,
    }
}
